//! A device without driver or hardware: it says its name and knows nothing else. Stands where the live machine goes.

use super::{Change, Device, Errno, File, Refusal};
use crate::config::Config;
use crate::nodes::Minor;
use std::sync::Arc;
use units::{HostRange, HostVa};

struct Bare;

pub fn start(_config: &Config) -> Result<Arc<dyn Device>, Refusal> {
    Ok(Arc::new(Bare))
}

impl Device for Bare {
    fn open(&self, _minor: Minor) -> Result<Arc<dyn File>, Errno> {
        Ok(Arc::new(Bare))
    }
    fn exclude(&self, _range: HostRange) {}
    fn before_change(&self, _range: HostRange, _change: Change) {}
    fn fork_prepare(&self) {}
    fn fork_parent(&self) {}
    fn own_fds(&self) -> Vec<i32> {
        Vec::new()
    }
    fn gt_stats(&self, _gt: u32) -> Vec<(&'static str, u64)> {
        vec![("svm_pagefault_count", 0), ("tlb_inval_count", 0)]
    }
    fn shutdown(&self) {}
    fn report(&self) -> String {
        "{}".into()
    }
}

impl File for Bare {
    fn ioctl(&self, _command: u32, _argument: HostVa) -> Result<u32, Errno> {
        Err(Errno(libc::ENOTTY))
    }
    fn close(&self) {}
}
