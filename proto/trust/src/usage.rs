//! What a certificate may be used for: one extended key usage of our own per place (PROTOCOL 1).

use lianxin_types::Kind;

/// The place in which a certificate is shown. Each has its own extended key usage, and a certificate that carries one of
/// them is refused in every other place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Usage {
    /// A member's TLS connection to a gateway.
    TlsClient,
    /// A gateway's end of a TLS connection.
    TlsGateway,
    /// An MLS leaf's credential.
    Mls,
    /// An officer's signature.
    Officer,
    /// A witness's cosignature.
    Witness,
    /// An issuer of device certificates.
    Issuer,
}

impl Usage {
    /// All usages, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::TlsClient, Self::TlsGateway, Self::Mls, Self::Officer, Self::Witness, Self::Issuer];

    /// The object identifier in the certificate's extended key usage, `1.3.6.1.4.1.65535.1.N`.
    ///
    /// **Placeholder arc.** Enterprise number 65535 is not ours; before the first production certificate it is replaced by
    /// a registered one, here and nowhere else.
    pub fn oid(self) -> &'static [u64] {
        match self {
            Self::TlsClient => &[1, 3, 6, 1, 4, 1, 65_535, 1, 1],
            Self::TlsGateway => &[1, 3, 6, 1, 4, 1, 65_535, 1, 2],
            Self::Mls => &[1, 3, 6, 1, 4, 1, 65_535, 1, 3],
            Self::Officer => &[1, 3, 6, 1, 4, 1, 65_535, 1, 4],
            Self::Witness => &[1, 3, 6, 1, 4, 1, 65_535, 1, 5],
            Self::Issuer => &[1, 3, 6, 1, 4, 1, 65_535, 1, 6],
        }
    }

    /// The content of that identifier in DER. (webpki decodes identifiers wrongly from arc 128 on: compare these bytes.)
    pub(crate) const fn oid_der(self) -> &'static [u8] {
        match self {
            Self::TlsClient => &[0x2b, 6, 1, 4, 1, 0x83, 0xff, 0x7f, 1, 1],
            Self::TlsGateway => &[0x2b, 6, 1, 4, 1, 0x83, 0xff, 0x7f, 1, 2],
            Self::Mls => &[0x2b, 6, 1, 4, 1, 0x83, 0xff, 0x7f, 1, 3],
            Self::Officer => &[0x2b, 6, 1, 4, 1, 0x83, 0xff, 0x7f, 1, 4],
            Self::Witness => &[0x2b, 6, 1, 4, 1, 0x83, 0xff, 0x7f, 1, 5],
            Self::Issuer => &[0x2b, 6, 1, 4, 1, 0x83, 0xff, 0x7f, 1, 6],
        }
    }

    /// Whether a holder of `kind` may show a certificate in this place.
    pub const fn admits(self, kind: Kind) -> bool {
        match self {
            Self::TlsClient | Self::Mls => kind.is_member(),
            Self::TlsGateway => matches!(kind, Kind::Gateway),
            Self::Officer => matches!(kind, Kind::Officer),
            Self::Witness => matches!(kind, Kind::Witness),
            Self::Issuer => matches!(kind, Kind::Issuer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_places_and_no_other() {
        let places = |kind| Usage::ALL.into_iter().filter(move |usage| usage.admits(kind)).collect::<Vec<_>>();
        assert_eq!(places(Kind::App), [Usage::TlsClient, Usage::Mls]);
        assert_eq!(places(Kind::Person), [Usage::TlsClient, Usage::Mls]);
        assert_eq!(places(Kind::Gateway), [Usage::TlsGateway]);
        assert_eq!(places(Kind::Officer), [Usage::Officer]);
        assert_eq!(places(Kind::Witness), [Usage::Witness]);
        assert_eq!(places(Kind::Issuer), [Usage::Issuer]);
    }

    #[test]
    fn the_identifiers_are_numbered_from_one_under_one_arc() {
        for (index, usage) in Usage::ALL.into_iter().enumerate() {
            assert_eq!(usage.oid(), [1, 3, 6, 1, 4, 1, 65_535, 1, index as u64 + 1]);
        }
    }
}
