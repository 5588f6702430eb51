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
    /// docs/METRICS.md
    Metrics,
}

impl DocsArgs {
    #[expect(clippy::print_stdout, reason = "the page is the output")]
    pub(super) fn run(self) -> ExitCode {
        match self.page {
            Page::Metrics => print!("{}", crate::observe::names::markdown()),
        }
        ExitCode::SUCCESS
    }
}
