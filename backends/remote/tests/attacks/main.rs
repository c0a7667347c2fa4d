//! Attacks on a live server: nothing is read, nothing is lost, and others are still served.

#[path = "../ground/mod.rs"]
mod ground;

mod guessing;
mod identity;
mod paths;
mod slow;
mod smuggling;
mod storm;
mod timing;
