//! The driver: faults, SVM policy, VMs, page tables, binds, queues, fences and ioctls.
#![forbid(unsafe_code)]
