//! Everything that needs more than one module: contracts, worlds, real processes, real services.

mod harness;

mod bad_input;
mod cli;
mod contracts;
mod crash;
mod docs;
mod faults;
mod hostile;
mod journey;
mod services;
mod tidy;
