//! From the text of a master file to its entries: words with their lines, parentheses and comments resolved.

use super::{Problem, Token};

/// What stands on one line, or within parentheses on several.
pub(super) struct Entry<'a> {
    pub(super) line: u32,
    /// Begins with a blank: the owner is that of the record before.
    pub(super) blank: bool,
    pub(super) tokens: Vec<Token<'a>>,
}

/// Where the reading stands.
pub(super) struct Lexer<'a> {
    pub(super) rest: &'a str,
    pub(super) line: u32,
}

impl<'a> Lexer<'a> {
    /// The next entry that has any word; after an error the lexer stands at the next line.
    pub(super) fn entry(&mut self) -> Option<Result<Entry<'a>, (u32, Problem)>> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let blank = self.rest.starts_with([' ', '\t']);
            let line = self.line;
            match self.tokens() {
                Ok(tokens) if tokens.is_empty() => {}
                Ok(tokens) => return Some(Ok(Entry { line, blank, tokens })),
                Err(error) => {
                    self.skip_line();
                    return Some(Err(error));
                }
            }
        }
    }

    fn tokens(&mut self) -> Result<Vec<Token<'a>>, (u32, Problem)> {
        let mut tokens = Vec::new();
        let mut open: Option<(u32, &'a str)> = None;
        let mut depth = 0u32;
        loop {
            let Some(byte) = self.rest.bytes().next() else {
                // A parenthesis that swallowed the rest of the file: go on behind the line on which it opened.
                let Some((line, rest)) = open else { return Ok(tokens) };
                (self.rest, self.line) = (rest, line);
                return Err((line, Problem::OpenParenthesis));
            };
            match byte {
                b'\n' => {
                    self.advance(1);
                    self.line += 1;
                    if depth == 0 {
                        return Ok(tokens);
                    }
                }
                b' ' | b'\t' | b'\r' => self.advance(1),
                b';' => self.advance(self.rest.find('\n').unwrap_or(self.rest.len())),
                b'(' => {
                    if depth == 0 {
                        open = Some((self.line, self.rest));
                    }
                    depth += 1;
                    self.advance(1);
                }
                b')' => {
                    depth = depth.checked_sub(1).ok_or((self.line, Problem::StrayParenthesis))?;
                    if depth == 0 {
                        open = None;
                    }
                    self.advance(1);
                }
                b'"' => {
                    let end = self.quote_end(0).ok_or((self.line, Problem::OpenQuote))?;
                    tokens.push(Token {
                        text: self.rest.get(1..end).unwrap_or_default(),
                        quoted: true,
                        line: self.line,
                    });
                    self.advance(end + 1);
                }
                _ => {
                    let end = self.word_end().ok_or((self.line, Problem::OpenQuote))?;
                    tokens.push(Token {
                        text: self.rest.get(..end).unwrap_or_default(),
                        quoted: false,
                        line: self.line,
                    });
                    self.advance(end);
                }
            }
        }
    }

    /// Where the quote that opens at `from` closes on its line.
    fn quote_end(&self, from: usize) -> Option<usize> {
        let bytes = self.rest.as_bytes();
        let mut at = from + 1;
        loop {
            match bytes.get(at)? {
                b'"' => return Some(at),
                b'\n' => return None,
                b'\\' if bytes.get(at + 1).is_some_and(|b| *b != b'\n') => at += 2,
                _ => at += 1,
            }
        }
    }

    /// Where the word that begins here ends. A quote inside it (`alpn="h2,h3"`) belongs to it; `None` if that stays open.
    fn word_end(&self) -> Option<usize> {
        let bytes = self.rest.as_bytes();
        let mut at = 0;
        loop {
            match bytes.get(at) {
                None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')') => return Some(at),
                Some(b'"') => at = self.quote_end(at)? + 1,
                Some(b'\\') if bytes.get(at + 1).is_some_and(|b| *b != b'\n') => at += 2,
                Some(_) => at += 1,
            }
        }
    }

    /// Steps over `n` octets. Every step ends behind or before an ASCII octet, or behind an escape, whose second octet may
    /// begin a longer character: then to the end of that.
    fn advance(&mut self, n: usize) {
        let mut n = n.min(self.rest.len());
        while !self.rest.is_char_boundary(n) {
            n += 1;
        }
        self.rest = self.rest.get(n..).unwrap_or_default();
    }

    fn skip_line(&mut self) {
        if let Some(end) = self.rest.find('\n') {
            self.advance(end + 1);
            self.line += 1;
        } else {
            self.rest = "";
        }
    }
}
