//! `springtide upgrade`: a node goes on in a new process, from the program that stands at its path now.

use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::client::{Admin, Ask, Client, ClientError};

/// Has the node that answers at --admin go on in a new process, without losing a request. One node: look at it, then go on
/// to the next. Where the new process cannot serve, the old one serves on, and says why.
#[derive(Debug, Args)]
pub(super) struct UpgradeArgs {
    #[command(flatten)]
    admin: Admin,
}

#[derive(serde::Deserialize)]
struct Upgraded {
    pid: u32,
}

impl UpgradeArgs {
    pub(super) fn run(self) -> ExitCode {
        super::finish(self.ask())
    }

    #[expect(clippy::print_stdout, reason = "the result is the output")]
    fn ask(&self) -> Result<ExitCode, ClientError> {
        let client = Client::new(&self.admin)?;
        let (address, Upgraded { pid }) = client.ask(&Ask::send(Method::POST, "/v1/upgrade", &()))?;
        println!("{address}: process {pid} serves");
        Ok(ExitCode::SUCCESS)
    }
}
