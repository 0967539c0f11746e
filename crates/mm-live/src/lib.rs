//! This process's real memory, moved by userfaultfd.
