//! The front door over real sockets: who is refused, with which alert, and who is let in.

mod admitted;
mod bounds;
mod caller;
mod hand_clock;
mod refused;
mod served;
mod stage;
