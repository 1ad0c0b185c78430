//! Everything that needs more than one module: contracts, worlds, real processes, real services.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails at once")]
#![allow(clippy::type_complexity, reason = "tables of cases")]
#![allow(clippy::pedantic, reason = "tests are written to be read as stories")]

mod harness;
mod stock;

mod agreement;
mod api;
mod bad_input;
mod cli;
mod contracts;
mod conversation;
mod crash;
mod damage;
mod docs;
mod faults;
mod formats;
mod full_disk;
mod hold;
mod hostile;
mod image;
mod index;
mod journey;
mod keys;
mod model;
mod packtest;
mod policies;
mod power;
mod programs;
mod python;
mod reasons;
mod reload;
mod retention;
mod rules_cli;
mod scripts;
mod secrets;
mod sensors;
mod services;
mod stackstorm;
mod steps;
mod store_cli;
mod surface;
mod tidy;
mod vectors;
mod windows;
