//! Fences of the DRM core and of the device, as C programs see them.

use crate::clients::{Client, is_right, userfaultfd};

#[test]
fn syncobjs_do_what_the_drm_core_does() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("syncobj");
    for options in [&[][..], &["--no-move"], &["--hostile"]] {
        is_right(&client, options, &[]);
    }
}

#[test]
fn jobs_wait_for_fences_signal_them_and_end() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("exec-fences");
    is_right(&client, &[], &[]);
    is_right(&client, &["--no-move"], &["quick"]);
    is_right(&client, &["--hostile"], &["quick"]);
}
