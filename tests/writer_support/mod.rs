//! Shared by the tests of the `Writer`: keeping the writer thread busy until the test says otherwise, which is
//! how a test decides what goes into one batch.
#![allow(dead_code)] // every test binary takes what it needs

use std::sync::mpsc;

use forebay::{Error, Ticket, Writer};

/// The writer thread, inside a closure.
pub struct Held {
    release: mpsc::Sender<()>,
    ticket: Ticket<()>,
}

/// Returns when the writer thread is inside a closure; whatever is submitted now goes into the next batch.
pub fn hold(writer: &Writer) -> Held {
    let (release, released) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    let ticket = writer.blocking_submit(move |_tx| {
        entered.send(()).map_err(|_| Error::operation("the test has gone"))?;
        let _ = released.recv();
        Ok::<_, Error>(())
    });
    inside.recv().unwrap();
    Held { release, ticket }
}

impl Held {
    pub fn release(self) {
        drop(self.release);
        self.ticket.wait().unwrap();
    }

    /// For a batch that is rolled back, and the one that holds it up with it.
    pub fn try_release(self) {
        drop(self.release);
        let _ = self.ticket.wait();
    }
}
