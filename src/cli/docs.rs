//! `springtide docs`: reference pages, generated from what the program itself goes by.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

/// Prints a generated reference page.
#[derive(Debug, Args)]
pub(super) struct DocsArgs {
    /// Which page.
    page: Page,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Page {
    /// docs/CONFIG.md
    Config,
    /// docs/METRICS.md
    Metrics,
    /// docs/openapi.json: the interface of the red-packet services, as OpenAPI 3.1
    Openapi,
    /// docs/springtide.schema.json: JSON schema of the configuration, for editors
    Schema,
}

impl DocsArgs {
    #[expect(clippy::print_stdout, reason = "the page is the output")]
    pub(super) fn run(self) -> ExitCode {
        match self.page {
            Page::Config => print!("{}", crate::config::schema::markdown()),
            Page::Metrics => print!("{}", crate::observe::names::markdown()),
            Page::Openapi => print!("{}", crate::redpacket::contract::openapi()),
            Page::Schema => print!("{}", crate::config::schema::json_schema()),
        }
        ExitCode::SUCCESS
    }
}
