//! The whole of twinlock on one machine: a database client, an egress, an ingress, a database server,
//! and what each of them sees of one query. Nothing is needed but this repository:
//!
//! ```text
//! cargo run --release --example demo
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to the person who started it")]

mod gateway;
mod link;
mod server;
mod show;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use tokio::signal::unix::{Signal, SignalKind, signal};

use link::Link;

/// What can go wrong here is told to a person, and ends the demo.
type Failure = Box<dyn std::error::Error>;

/// Shows one query on its way through an egress and an ingress, and a rotation of their certificates.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Flags {
    /// Stay up afterwards, for a client of your own, until Ctrl-C.
    #[arg(long)]
    stay: bool,
    /// A real MySQL or MariaDB server instead of the embedded one.
    #[arg(long, value_name = "HOST:PORT")]
    backend: Option<String>,
    /// The user to log in as.
    #[arg(long, default_value = "demo")]
    user: String,
    /// The user's password [default: none].
    #[arg(long, env = "MYSQL_PWD", hide_env_values = true)]
    password: Option<String>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == gateway::ARGUMENT) {
        return gateway::become_one(arguments).into();
    }
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => return misused(&error),
    };
    // Everything that was started has ended and is removed when this returns, whatever it returns.
    match run(&flags) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("demo: {failure}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(flags: &Flags) -> Result<ExitCode, Failure> {
    let mut stop = Stop::listen()?;
    let mut link = tokio::select! {
        link = story(flags) => link?,
        () = stop.told() => return Ok(ExitCode::from(130)),
    };
    if flags.stay {
        show::how_to_connect(&link, flags);
        loop {
            tokio::select! {
                record = link.egress.next_record() => show::line(&record?),
                () = stop.told() => break,
            }
        }
    }
    let directory = link.directory().to_owned();
    show::end(link.close().await?, &directory);
    Ok(ExitCode::SUCCESS)
}

/// What the demo is about.
async fn story(flags: &Flags) -> Result<Link, Failure> {
    let mut link = Link::open(flags).await?;
    show::parts(&link, flags);

    show::heading(1, "A query");
    let mut client = link.connect().await?;
    show::answer(link::QUERY, &link::ask(&mut client).await?);
    client.disconnect().await?;
    let (egress, ingress) = link.records(1).await?;
    show::legs(&egress, &ingress, link.egress.address);

    show::heading(2, "New certificates while a connection is open");
    let mut old = link.connect().await?;
    show::session("connection 2 opened", &link::ask(&mut old).await?);
    link.rotate().await?;
    println!("  certificates and keys replaced; both gateways use the new ones, without a restart");
    show::session("connection 2 still answers", &link::ask(&mut old).await?);
    let mut new = link.connect().await?;
    show::session("connection 3 opened", &link::ask(&mut new).await?);
    new.disconnect().await?;
    let after = link.records(3).await?;
    old.disconnect().await?;
    show::certificates(&link.records(2).await?, &after);
    Ok(link)
}

/// The ways in which a person or a system asks for the end.
struct Stop([Signal; 3]);

impl Stop {
    fn listen() -> io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn told(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Help is an answer; a mistake is told in one line.
fn misused(error: &clap::Error) -> ExitCode {
    if error.kind() == ErrorKind::DisplayHelp {
        print!("{error}");
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    eprintln!("demo: {line} (see --help)");
    ExitCode::from(2)
}
