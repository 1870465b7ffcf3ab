//! Another process that opens a database: this test binary once more, told by its environment what to do. Each
//! says on its output, word by word, how far it has got.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::{Place, bounded_thread};

const FILE: &str = "FOREBAY_OTHER_PROCESS";

/// The other process as the test sees it, which ends it at the latest when it ends itself.
pub(crate) struct Other {
    pub(crate) child: Child,
    output: Option<BufReader<ChildStdout>>,
}

impl Other {
    /// Runs the test `name` of this binary, alone, on the file of `place`.
    pub(crate) fn start(name: &str, place: &Place) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("it has a path"))
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(FILE, place.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = child.stdout.take().map(BufReader::new);
        Self { child, output }
    }

    /// In the other process: the file it is to open. `None` in any other.
    pub(crate) fn file() -> Option<PathBuf> {
        std::env::var_os(FILE).map(PathBuf::from)
    }

    /// In the other process: tells the test.
    pub(crate) fn say(word: &str, rest: &str) {
        println!("\n@{word} {rest}");
    }

    /// Blocks until the other process says the word; what it says behind it.
    pub(crate) fn says(&mut self, word: &'static str) -> String {
        let mut output = self.output.take().expect("it was heard out the last time");
        let (output, rest) = bounded_thread(move || {
            let mut line = String::new();
            while output.read_line(&mut line).expect("it can be read") > 0 {
                let said = line.strip_prefix('@').and_then(|said| said.strip_prefix(word));
                if let Some(rest) = said.and_then(|rest| rest.strip_prefix(' ')) {
                    return (output, rest.trim().to_owned());
                }
                line.clear();
            }
            panic!("the other process ended without saying {word:?}");
        });
        self.output = Some(output);
        rest
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // One that is stopped can be killed all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
