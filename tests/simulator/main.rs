//! The simulator.

mod disk;
