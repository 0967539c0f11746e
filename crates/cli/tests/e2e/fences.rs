//! Fences of the DRM core and of the device, as C programs see them.

use crate::clients::{Client, userfaultfd};

/// The client's last line says that all was as it should be, however memory is managed.
fn all_right(client: &str) {
    if !userfaultfd() {
        return;
    }
    let client = Client::new(client);
    for options in [&[][..], &["--no-move"], &["--hostile"]] {
        let run = client.run(options, &[]);
        assert_eq!(run.code, Some(0), "{options:?}: {}{}", run.out, run.err);
    }
}

#[test]
fn syncobjs_do_what_the_drm_core_does() {
    all_right("syncobj");
}
