//! The contract, sentence by sentence, in simulated time.

mod world;

mod busy;
mod clocks;
mod completing;
mod counting;
mod crashes;
mod described;
mod identified;
mod model;
mod notes;
mod order;
mod outages;
mod outcomes;
mod partial;
mod people;
mod readers;
mod removals;
mod repeats;
mod settling;
mod storage;
mod superseding;
mod trials;
