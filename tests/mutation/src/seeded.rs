//! A small generator, so that a failure repeats.

/// SplitMix64: fast, the same everywhere, and not for secrets.
#[derive(Debug, Clone)]
pub struct Seeded(u64);

impl Seeded {
    /// A generator that gives the same numbers for the same seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator for one case among many: the same seed, subject and number give the same mutant, whatever was drawn
    /// for others before.
    pub fn of_case(seed: u64, subject: &str, number: u64) -> Self {
        let mut generator = Self(seed ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        for byte in subject.bytes() {
            generator.0 = generator.next() ^ u64::from(byte);
        }
        generator
    }

    /// 64 bits.
    #[expect(clippy::should_implement_trait, reason = "it has no end, and callers want a number, not an Option")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, and 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    /// `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_depends_on_its_seed_its_subject_and_its_number_alone() {
        let first = |seed, subject, number| Seeded::of_case(seed, subject, number).next();
        assert_eq!(first(1, "a", 1), first(1, "a", 1));
        let others = [first(2, "a", 1), first(1, "b", 1), first(1, "a", 2)];
        assert!(others.iter().all(|other| *other != first(1, "a", 1)), "{others:?}");
    }
}
