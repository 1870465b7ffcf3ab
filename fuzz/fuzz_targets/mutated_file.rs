//! A database that came to harm is opened, asked everything, and written to: it gives errors or right answers
//! (`forebay_fuzz::asked` says what is right), never a panic, never a hang, and the writer comes to rest.
#![no_main]

use std::sync::OnceLock;

use arbitrary::Unstructured;
use forebay_fuzz::written::Written;
use forebay_fuzz::{asked, damage};
use libfuzzer_sys::fuzz_target;

static WRITTEN: OnceLock<[Written; 2]> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let [closed, with_a_log] = WRITTEN.get_or_init(|| [Written::closed(), Written::with_a_log()]);
    let mut u = Unstructured::new(bytes);
    let Ok(in_log) = u.arbitrary::<bool>() else { return };
    let written = if in_log { with_a_log } else { closed };
    let Ok(damaged) = damage::damaged(written, &mut u) else { return };
    if let Some(answers) = asked::ask(&damaged.main, &damaged.log) {
        asked::check(written, damaged.touched, &answers);
    }
});
