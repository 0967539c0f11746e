//! The LD_PRELOAD library: libc calls of an unmodified program become calls of the software GPU.
//!
//! A program that opens `/dev/dri/renderD128` gets the file descriptor of a memfd; what it then does with that
//! descriptor is answered by the machine (driver, hardware and this process's real memory) that this library
//! starts at the first such open. Everything else passes through to libc.
//!
//! | module | what |
//! |---|---|
//! | `heap` | the global allocator and the threads: memory that the machine never migrates (**unsafe**) |
//! | `libc_calls` | the interposed functions, and the real ones behind them (**unsafe**) |
//! | `view` | the file system as the program sees it: a real tree, shown under `/dev/dri`, `/sys`, debugfs |
//! | `nodes` | which file descriptors are ours, and what is open behind them |
//! | `device` | the face of the machine that the interposers use |
//! | `session` | this process's machine: started late, quieted for a fork, shut down at the end |
//! | `outside` | the end of a process that does not pass through libc |
//! | `fdinfo` | what other processes of the run are told of this one's open files |
//! | `marks` | what the processes of one run tell each other |
//! | `refused` | why an atomic was refused |
//! | `report` | the line that this process leaves of what happened |
//! | `config` | what the environment asks for |
//!
//! Locking: two locks, `session` before `nodes`, both leaves of the program's world (never held while a call of the
//! machine runs) and both held across a fork. The heap's lock is below all others.
//!
//! A call that is not ours takes no lock, allocates nothing and keeps `errno`: it may come from a signal handler, or
//! from inside any library. A call that is ours runs with the program's signals blocked (`libc_calls::signals`), so
//! that no handler can jump out of the middle of the driver.
#![deny(unsafe_code)]

mod config;
mod device;
mod fdinfo;
mod heap;
mod libc_calls;
mod marks;
mod minor;
mod nodes;
mod outside;
mod refused;
mod report;
mod session;
mod view;
