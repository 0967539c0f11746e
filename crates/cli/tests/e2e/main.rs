//! End to end: C programs, and programs that know nothing of a GPU, under the real command and the real library.
#![allow(clippy::disallowed_types, reason = "tests are outside of what the checker controls")]

mod accounts;
mod arguments;
mod buffers;
mod clients;
mod command;
mod commands;
mod counting;
mod devices;
mod documented;
mod emitted;
mod fences;
mod first;
mod hostile;
mod kernels;
mod loading;
mod outside;
mod owners;
mod planted;
mod process;
mod recorded;
mod rest;
mod rights;
mod searches;
mod sequences;
mod sharing;
mod stress;
mod tiles;
mod tour;
