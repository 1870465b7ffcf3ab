//! The command line: a few flags, read by hand so that the example needs no parser crate.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

pub const USAGE: &str = "\
Runs orders through duroxide on a forebay file, then proves that each was completed exactly once.

Usage: cargo run --release --example orders -- [options]

  --orders N               how many orders, 1 to 1000000 (default 2000)
  --in-flight N            how many at a time, 1 to 100000 (default 200)
  --db PATH                the database file (default target/orders.db)
  --durability full|normal full: what anybody outside was told survives a power loss (default)
                           normal: all survives a crash of the process; a power loss may take the newest
  --fresh                  delete the file of an earlier run and begin again
  --resume                 finish the run that is in the file
  --quick                  100 orders, for CI
  --help                   this text
";

const ORDERS_DEFAULT: u64 = 2_000;
const ORDERS_QUICK: u64 = 100;
const ORDERS_MAX: u64 = 1_000_000;
const IN_FLIGHT_DEFAULT: usize = 200;
const IN_FLIGHT_MAX: u64 = 100_000;
/// Under `target/`, not under the temporary directory: that is often a file system in memory, where an
/// fsync costs nothing and `--durability full` would look better than it is.
const DB_DEFAULT: &str = "target/orders.db";

pub enum Command {
    Run(Args),
    Help,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    New,
    Fresh,
    Resume,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    Full,
    Normal,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Full => "full",
            Durability::Normal => "normal",
        })
    }
}

pub struct Args {
    /// `None` if the command line did not say: a resumed run takes the number from the store.
    pub orders: Option<u64>,
    pub in_flight: usize,
    pub db: PathBuf,
    pub mode: Mode,
    pub durability: Durability,
}

impl Args {
    pub fn orders_or_default(&self) -> u64 {
        self.orders.unwrap_or(ORDERS_DEFAULT)
    }

    /// What to paste into a shell to finish this run. The number of orders is in the store by then, or
    /// else nothing has begun: only that second case needs it here.
    pub fn resume_command(&self) -> String {
        let mut command = "cargo run --release --example orders -- --resume".to_string();
        if let Some(orders) = self.orders {
            command += &format!(" --orders {orders}");
        }
        if self.in_flight != IN_FLIGHT_DEFAULT {
            command += &format!(" --in-flight {}", self.in_flight);
        }
        if self.durability != Durability::Full {
            command += &format!(" --durability {}", self.durability);
        }
        let db = self.db.display().to_string();
        if db != DB_DEFAULT {
            command += &format!(" --db '{}'", db.replace('\'', r"'\''"));
        }
        command
    }
}

/// Reads the arguments after the program's name. The error is one line that says which argument is wrong.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut args = Args {
        orders: None,
        in_flight: IN_FLIGHT_DEFAULT,
        db: PathBuf::from(DB_DEFAULT),
        mode: Mode::New,
        durability: Durability::Full,
    };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let flag = argument.to_string_lossy().into_owned();
        let mut value = || arguments.next().ok_or_else(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--help" | "-h" => return Ok(Command::Help),
            "--orders" => set_orders(&mut args, number(&flag, value()?, ORDERS_MAX)?)?,
            "--quick" => set_orders(&mut args, ORDERS_QUICK)?,
            // The limit fits a usize of 32 bits.
            "--in-flight" => args.in_flight = number(&flag, value()?, IN_FLIGHT_MAX)? as usize,
            "--db" => args.db = PathBuf::from(value()?),
            "--fresh" => set_mode(&mut args, Mode::Fresh)?,
            "--resume" => set_mode(&mut args, Mode::Resume)?,
            "--durability" => {
                args.durability = match value()?.to_str() {
                    Some("full") => Durability::Full,
                    Some("normal") => Durability::Normal,
                    _ => return Err("--durability is either full or normal".into()),
                }
            }
            _ => return Err(format!("unknown argument {flag:?}")),
        }
    }
    if args.db.file_name().is_none() {
        return Err(format!("--db {:?} does not name a file", args.db));
    }
    Ok(Command::Run(args))
}

fn number(flag: &str, value: OsString, max: u64) -> Result<u64, String> {
    let text = value.to_string_lossy();
    match text.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(format!("{flag} takes a number from 1 to {max}, not {text:?}")),
    }
}

fn set_orders(args: &mut Args, orders: u64) -> Result<(), String> {
    match args.orders.replace(orders) {
        None => Ok(()),
        Some(_) => Err("the number of orders is given twice (--quick means --orders 100)".into()),
    }
}

fn set_mode(args: &mut Args, mode: Mode) -> Result<(), String> {
    if args.mode != Mode::New && args.mode != mode {
        return Err("--fresh deletes what --resume would finish; give one of them".into());
    }
    args.mode = mode;
    Ok(())
}
