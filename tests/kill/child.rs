//! The process that dies, as its parent sees it: started, listened to, killed.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::manner::{Kind, Manner};
use crate::random::Random;
use crate::report::Report;

const JOB: &str = "FOREBAY_KILL_JOB";

/// A child that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the child is to do.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) database: PathBuf,
    /// The first number it may use: no two children of one file use the same.
    pub(crate) first: u64,
    pub(crate) wal_bytes_max: u64,
    pub(crate) manner: Manner,
}

impl Job {
    /// What this process is to do, if it is the child. It ends with its parent.
    pub(crate) fn own() -> Option<Self> {
        let job = std::env::var(JOB).ok()?;
        thread::spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(1);
        });
        let mut fields = job.splitn(4, ' ');
        let mut field = || fields.next().expect("four fields");
        let number = |text: &str| text.parse().expect("a number");
        Some(Self {
            first: number(field()),
            wal_bytes_max: number(field()),
            manner: Manner::read(field()).expect("a manner"),
            database: field().into(),
        })
    }

    fn text(&self, database: &Path) -> String {
        format!("{} {} {} {}", self.first, self.wal_bytes_max, self.manner.word(), database.display())
    }
}

/// When the child dies.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Death {
    /// So long after it was started: most likely while it opens the file.
    Opening(Duration),
    /// So long after the load began.
    Working(Duration),
    /// When it has told of so many of a kind.
    Told(Kind, usize),
    /// When this is true of everything it has told.
    When(fn(&[Report]) -> bool),
}

impl Death {
    pub(crate) fn random(random: &mut Random) -> Self {
        match random.below(5) {
            0 => Self::Opening(Duration::from_micros(random.next() % 30_000)),
            1 => Self::Told(Kind::End, 1 + random.below(20)),
            _ => Self::Working(Duration::from_micros(random.next() % 400_000)),
        }
    }
}

/// Runs the test `name` of this binary as another process on `job`, kills it, and returns what it said.
pub(crate) fn run_and_kill(name: &str, job: &Job, death: Death) -> Vec<Report> {
    let mut running = Running::start(name, job);
    let mut reports = Vec::new();
    if let Death::Opening(delay) = death {
        std::thread::sleep(delay);
    } else {
        assert_eq!(running.next(&[]), Report::Ready, "nothing comes before");
    }
    if let Death::Working(delay) = death {
        std::thread::sleep(delay);
    }
    let comes = |told: &[Report]| match death {
        Death::Opening(_) | Death::Working(_) => true,
        Death::Told(kind, times) => {
            told.iter().filter(|report| Kind::of(report) == Some(kind)).count() >= times
        }
        Death::When(so) => so(told),
    };
    while !comes(&reports) {
        let next = running.next(&reports);
        reports.push(next);
    }
    running.child.kill().expect("it can be killed");
    let status = running.child.wait().expect("it is gone");
    assert_eq!(status.code(), None, "the child ended by itself, before it was killed");
    // What is still in the pipe; its end is the end of the child.
    reports.extend(running.reports.iter().filter(|report| *report != Report::Ready));
    reports
}

struct Running {
    child: Child,
    reports: Receiver<Report>,
}

impl Running {
    fn start(name: &str, job: &Job) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("it has a path"))
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(JOB, job.text(&job.database))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, reports) = channel();
        thread::spawn(move || {
            let mut line = String::new();
            while output.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                let whole = line.strip_suffix('\n').and_then(Report::read);
                if whole.is_some_and(|report| sender.send(report).is_err()) {
                    break;
                }
                line.clear();
            }
        });
        Self { child, reports }
    }

    /// What it says next, after all that it has `told`.
    fn next(&mut self, told: &[Report]) -> Report {
        let began = Instant::now();
        self.reports.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            let (waited, ended) = (began.elapsed(), self.child.try_wait());
            panic!(
                "the child says nothing more ({error}) after {} reports, the last of them {:?}; waited \
                 {waited:?}, its exit is {ended:?}",
                told.len(),
                told.last()
            )
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
