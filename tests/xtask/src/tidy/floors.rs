//! Which crate may list which (DESIGN 3). A new crate or a new arrow changes this table in the same commit.

use anyhow::Result;

use super::Violation;
use super::house::House;

/// One crate: its floor, and the crates of ours that it may list as normal or build dependencies.
struct Room {
    name: &'static str,
    floor: u8,
    may_list: &'static [&'static str],
}

const fn room(name: &'static str, floor: u8, may_list: &'static [&'static str]) -> Room {
    Room { name, floor, may_list }
}

const ROOMS: &[Room] = &[
    room("lianxin-types", 1, &[]),
    room("lianxin-trust", 1, &["lianxin-types"]),
    room("lianxin-tlog", 1, &["lianxin-types"]),
    room("lianxin-profile", 1, &["lianxin-tlog", "lianxin-trust", "lianxin-types"]),
    room("lianxin-proto", 2, &["lianxin-tlog", "lianxin-types"]),
    room("lianxin-policy", 2, &["lianxin-types"]),
    room("lianxin-store", 2, &["lianxin-tlog", "lianxin-types"]),
    room("lianxin-transport", 2, &["lianxin-trust", "lianxin-types"]),
    room("lianxin-keystore", 2, &["lianxin-types"]),
    room("lianxin-certs-dev", 2, &["lianxin-trust", "lianxin-types"]),
    room("lianxin-store-sled", 3, &["lianxin-store", "lianxin-tlog", "lianxin-types"]),
    // The one service that knows the policy: it demands the `Permit`.
    room(
        "lianxin-delivery",
        3,
        &["lianxin-policy", "lianxin-profile", "lianxin-store", "lianxin-tlog", "lianxin-trust", "lianxin-types"],
    ),
    room("lianxin-identity", 3, &["lianxin-store", "lianxin-trust", "lianxin-types"]),
    room("lianxin-audit", 3, &["lianxin-store", "lianxin-tlog", "lianxin-types"]),
    room("lianxin-mls", 3, &["lianxin-keystore", "lianxin-profile", "lianxin-tlog", "lianxin-trust", "lianxin-types"]),
    room("lianxin-connection", 3, &["lianxin-proto", "lianxin-trust", "lianxin-types"]),
    room(
        "lianxin-operations",
        4,
        &[
            "lianxin-audit",
            "lianxin-delivery",
            "lianxin-identity",
            "lianxin-policy",
            "lianxin-profile",
            "lianxin-store",
            "lianxin-tlog",
            "lianxin-trust",
            "lianxin-types",
        ],
    ),
    room(
        "lianxin-sdk",
        4,
        &[
            "lianxin-connection",
            "lianxin-keystore",
            "lianxin-mls",
            "lianxin-profile",
            "lianxin-tlog",
            "lianxin-trust",
            "lianxin-types",
        ],
    ),
    // A face: no service and no store, or the guard could be gone around.
    room("lianxin-rpc", 5, &["lianxin-operations", "lianxin-proto", "lianxin-types"]),
    room(
        "lianxin-gateway",
        6,
        &[
            "lianxin-audit",
            "lianxin-delivery",
            "lianxin-identity",
            "lianxin-operations",
            "lianxin-policy",
            "lianxin-profile",
            "lianxin-proto",
            "lianxin-rpc",
            "lianxin-store",
            "lianxin-store-sled",
            "lianxin-tlog",
            "lianxin-transport",
            "lianxin-trust",
            "lianxin-types",
        ],
    ),
    room("lianxin-issuer", 6, &["lianxin-connection", "lianxin-trust", "lianxin-types"]),
    room("lianxin-harness", 7, TESTS),
    room("lianxin-e2e", 7, TESTS),
    room("lianxin-sim", 7, TESTS),
    room("lianxin-load", 7, TESTS),
    room("lianxin-mutation", 7, &[]),
    room("lianxin-specimens", 7, TESTS),
    room("lianxin-differential", 7, TESTS),
    room("lianxin-captures", 7, TESTS),
    // A workspace apart.
    room("lianxin-fuzz", 7, &["lianxin-specimens"]),
    room("xtask", 7, &["lianxin-types"]),
];

/// Tests stand above everything.
const TESTS: &[&str] = &[
    "lianxin-certs-dev",
    "lianxin-connection",
    "lianxin-delivery",
    "lianxin-gateway",
    "lianxin-harness",
    "lianxin-keystore",
    "lianxin-mls",
    "lianxin-mutation",
    "lianxin-profile",
    "lianxin-proto",
    "lianxin-sdk",
    "lianxin-specimens",
    "lianxin-store",
    "lianxin-store-sled",
    "lianxin-tlog",
    "lianxin-trust",
    "lianxin-types",
];

/// Foreign crates that only some of ours may list, by the start of their names.
const WALLS: &[(&str, &[&str])] = &[
    (
        "rustls",
        &[
            "lianxin-transport",
            "lianxin-connection",
            "lianxin-certs-dev",
            "lianxin-trust",
            "lianxin-e2e",
            "lianxin-harness",
        ],
    ),
    ("tokio-rustls", &["lianxin-transport", "lianxin-connection", "lianxin-e2e", "lianxin-harness"]),
    ("sled", &["lianxin-store-sled"]),
    ("rusqlite", &["lianxin-keystore"]),
    (
        "openmls",
        &[
            "lianxin-profile",
            "lianxin-delivery",
            "lianxin-mls",
            "lianxin-keystore",
            "lianxin-e2e",
            "lianxin-harness",
            "lianxin-specimens",
        ],
    ),
    ("cedar-policy", &["lianxin-policy"]),
    ("async-nats", &["lianxin-store-jetstream"]),
];

/// `trust` reads certificates with these; they are no TLS.
const NOT_TLS: &[&str] = &["rustls-pki-types", "rustls-webpki"];

pub(super) fn check(house: &House) -> Result<Vec<Violation>> {
    let packages = house.packages.iter().map(|package| (package.name.as_str(), package.dependencies.as_slice()));
    Ok(packages.flat_map(|(name, dependencies)| wrong_arrows(name, dependencies)).collect())
}

fn wrong_arrows(name: &str, dependencies: &[String]) -> Vec<Violation> {
    let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
        return vec![Violation::new(name, "is not in the table of floors (tests/xtask/src/tidy/floors.rs)")];
    };
    dependencies.iter().filter_map(|dependency| wrong_arrow(room, dependency)).collect()
}

fn wrong_arrow(room: &Room, dependency: &str) -> Option<Violation> {
    if let Some(other) = ROOMS.iter().find(|other| other.name == dependency) {
        let (from, to) = (room.floor, other.floor);
        let listed = room.may_list.contains(&dependency);
        return (!listed).then(|| {
            Violation::new(room.name, format!("may not list {dependency} (an arrow from floor {from} to floor {to})"))
        });
    }
    if dependency.starts_with("lianxin-") {
        return Some(Violation::new(room.name, format!("lists {dependency}, which is not in the table of floors")));
    }
    let wall = WALLS.iter().find(|(start, _)| dependency.starts_with(start) && !NOT_TLS.contains(&dependency));
    wall.filter(|(_, may)| !may.contains(&room.name))
        .map(|(_, may)| Violation::new(room.name, format!("may not list {dependency}; only {} may", may.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrows(name: &str, dependencies: &[&str]) -> Vec<String> {
        let dependencies: Vec<String> = dependencies.iter().map(|name| (*name).to_owned()).collect();
        wrong_arrows(name, &dependencies).into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn a_face_that_goes_around_the_guard_is_red() {
        let around = arrows("lianxin-rpc", &["lianxin-store", "lianxin-delivery"]);
        assert_eq!(around[0], "may not list lianxin-store (an arrow from floor 5 to floor 2)");
        assert_eq!(around.len(), 2);
        assert_eq!(arrows("lianxin-rpc", &["lianxin-trust"]).len(), 1);
        assert!(arrows("lianxin-rpc", &["lianxin-operations", "lianxin-proto", "tonic"]).is_empty());
    }

    #[test]
    fn a_rising_arrow_and_a_foreign_wall_are_red() {
        assert_eq!(
            arrows("lianxin-store", &["lianxin-rpc"]),
            ["may not list lianxin-rpc (an arrow from floor 2 to floor 5)"]
        );
        assert_eq!(arrows("lianxin-types", &["lianxin-trust"]).len(), 1);
        assert_eq!(arrows("lianxin-operations", &["lianxin-proto"]).len(), 1);
        assert_eq!(arrows("lianxin-operations", &["openmls"]).len(), 1);
        assert_eq!(arrows("lianxin-store", &["sled"]).len(), 1);
        assert_eq!(arrows("lianxin-gateway", &["tokio-rustls"]).len(), 1);
        assert!(arrows("lianxin-trust", &["rustls-webpki", "rustls-pki-types"]).is_empty());
    }

    #[test]
    fn a_crate_that_is_not_in_the_table_is_red() {
        assert_eq!(arrows("lianxin-shed", &[]).len(), 1);
        assert_eq!(arrows("lianxin-sdk", &["lianxin-shed"]).len(), 1);
    }

    /// The table itself: only floor 1 has arrows between neighbours, every other one falls (tests stand together on top).
    #[test]
    fn no_arrow_of_the_table_rises() {
        for room in ROOMS {
            for listed in room.may_list {
                let below =
                    ROOMS.iter().find(|other| other.name == *listed).expect("the table names only its own crates");
                let level = below.floor == room.floor && (room.floor == 1 || room.floor == 7);
                assert!(below.floor < room.floor || level, "{} -> {}", room.name, below.name);
            }
        }
    }

    #[test]
    fn wire_types_stop_at_the_edges() {
        let may: Vec<_> =
            ROOMS.iter().filter(|room| room.may_list.contains(&"lianxin-proto")).map(|room| room.name).collect();
        let edges = [
            "lianxin-connection",
            "lianxin-rpc",
            "lianxin-gateway",
            "lianxin-harness",
            "lianxin-e2e",
            "lianxin-sim",
            "lianxin-load",
            "lianxin-specimens",
            "lianxin-differential",
            "lianxin-captures",
        ];
        assert_eq!(may, edges);
    }
}
