//! Two judges of every handshake: ours (openmls's `PublicGroup` and the rules of the gateway) and mls-rs's `ExternalGroup`.
//!
//! Channels are made at random by the real SDK engine: invitations, removals, members that leave and commits of that, members
//! that come back from outside, Removes of the gateway for a revoked certificate, and moves to another removal key. Each
//! handshake is given to both judges as it is, and then mutated in every field: bits flipped, vectors emptied, proposals
//! dropped and doubled, another sender, another epoch, another path, authenticated data of another message. A second round
//! signs the mutants again with the keys of the device that made the handshake, so that what stands behind the signatures is
//! judged too. After each handshake that both accept, epoch, tree, group context and members are compared, and the group
//! context also with the one that the committer itself has put into its GroupInfo. Ours must also come to the same state when
//! it replays the handshake out of the log, after every authority, list and key by which it was judged has gone.
//!
//! What each judge says of each class of mutants is in `verdicts.golden`, with the reason where they differ. A verdict that
//! is not there turns this red: it is explained there, or a bug is mended. The failure names a file with everything that
//! was judged, and the command that judges it again:
//!
//! ```text
//! LIANXIN_DISAGREEMENT=<file> cargo test -p lianxin-differential replay
//! LIANXIN_TEST_SEED=<seed> cargo test -p lianxin-differential two_judges
//! LIANXIN_BLESS=1 cargo test -p lianxin-differential two_judges      # writes what is new into the table, to be explained
//! ```
//!
//! 2 channels of 10 changes by default, 20 of 20 in a long run. The seed decides who does what and which bit flips; keys are
//! drawn anew, so it is the file that replays a verdict exactly.
//!
//! What this does not show:
//!
//! - Neither judge can check a membership tag, a confirmation tag or what is encrypted in a path: only members can, and the
//!   SDK does (`client-sdk/mls/tests`). Mutants of these are accepted here, by both.
//! - Neither judge counts the ciphertexts in a path or looks at the keys of inner nodes: such a commit is accepted by both, fails at
//!   members, and is for their reports.
//! - Certificates are judged by our own `trust` on both sides: mls-rs leaves them to its caller. So are the rules of the
//!   profile that RFC 9420 does not have (who may propose what, the context, counts); where these alone refuse, the table
//!   says so.
//! - Updates by proposal, pre-shared keys and reinitialisation: the engine here makes none of them.
//! - A replayed file ages: openmls holds the lifetimes in it against the system's clock, so after at most 84 days ours refuses.

mod classes;
mod history;
mod judges;
mod second;
mod signing;
mod stories;
mod trail;
mod verdicts;
