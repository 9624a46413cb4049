//! Tests that need a whole database.

mod checkpoints;
mod database;
mod table;
