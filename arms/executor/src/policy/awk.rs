//! Programs of awk, which can run others in three ways: `system()`, a pipe behind `print`, and a pipe into `getline`.
//!
//! Function names can't be computed in awk, so the word `system` is all there is to look for. A pipe is a `|` that is
//! neither `||` nor part of a string or of a regular expression. Where a `/` may be a division as well as the begin of
//! an expression, no `|` is allowed behind it: there both readings hold.

use super::denied::Denied;

const ALLOWED: &str = "allowed are programs without system() and without pipes (print | …, … | getline); make what reads \
                       or writes them another stage of the pipeline";

/// Checks a program.
///
/// # Errors
/// [`Denied`] says what may run another program.
pub(super) fn check(program: &str) -> Result<(), Denied> {
    let denied = |rule: &str| Err(Denied::new(rule, ALLOWED));
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut words = program.split(|character| !is_word(character));
    if words.any(|word| word == "system") {
        return denied("has the word system, even if only in a text");
    }
    let mut scan = Scan {
        rest: program,
        before: Before::Operator,
        is_ambiguous: false,
    };
    scan.run().map_or(Ok(()), denied)
}

/// What stands before a `/`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing, an operator or a bracket that opens: an expression begins.
    Operator,
    /// A name, a number, a literal, `]`: a division.
    Operand,
    /// `)`, `++`, a function without brackets: either.
    Either,
}

struct Scan<'a> {
    rest: &'a str,
    before: Before,
    is_ambiguous: bool,
}

impl Scan<'_> {
    /// What is wrong, if anything.
    fn run(&mut self) -> Option<&'static str> {
        while let Some(first) = self.rest.chars().next() {
            match first {
                '"' => match literal_end(self.rest, '"') {
                    Some(end) => {
                        if let Some(problem) = self.literal(end) {
                            return Some(problem);
                        }
                    }
                    None => return Some("has a string without an end"),
                },
                '#' => self.advance(self.rest.find('\n').unwrap_or(self.rest.len())),
                '/' if self.before == Before::Operator => match literal_end(self.rest, '/') {
                    Some(end) if brackets_are_closed(&self.rest[1..end]) => {
                        if let Some(problem) = self.literal(end) {
                            return Some(problem);
                        }
                    }
                    Some(_) => {
                        return Some(
                            "has a / or a ] in brackets of an expression: write \\/ and \\]",
                        );
                    }
                    None => return Some("has an expression without an end"),
                },
                '/' => {
                    self.is_ambiguous |= self.before == Before::Either;
                    self.before = Before::Operator;
                    self.advance(1);
                }
                '|' => {
                    let run = self.rest.bytes().take_while(|byte| *byte == b'|').count();
                    if run != 2 {
                        return Some("has a pipe");
                    }
                    self.before = Before::Operator;
                    self.advance(run);
                }
                '+' | '-' if self.rest[1..].starts_with(first) => {
                    self.before = Before::Either;
                    self.advance(2);
                }
                ')' => {
                    self.before = Before::Either;
                    self.advance(1);
                }
                ']' => {
                    self.before = Before::Operand;
                    self.advance(1);
                }
                // A line that goes on.
                '\\' => self.advance(1 + usize::from(self.rest[1..].starts_with('\n'))),
                '\n' => {
                    self.before = Before::Operator;
                    self.advance(1);
                }
                first if first.is_whitespace() => self.advance(first.len_utf8()),
                first if first.is_ascii_alphanumeric() || first == '_' || first == '.' => {
                    self.word();
                }
                first => {
                    self.before = Before::Operator;
                    self.advance(first.len_utf8());
                }
            }
        }
        None
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    /// Steps over a string or an expression that ends at this byte.
    fn literal(&mut self, end: usize) -> Option<&'static str> {
        let has_pipe = has_lone_pipe(&self.rest[..=end]);
        self.before = Before::Operand;
        self.advance(end + 1);
        (self.is_ambiguous && has_pipe).then_some(
            "has a | behind a / that may be a division: put the division into a variable first",
        )
    }

    fn word(&mut self) {
        let end = self
            .rest
            .find(|character: char| {
                !(character.is_ascii_alphanumeric() || character == '_' || character == '.')
            })
            .unwrap_or(self.rest.len());
        self.before = match &self.rest[..end] {
            "print" | "printf" | "return" | "exit" | "else" | "do" | "in" | "delete" | "case" => {
                Before::Operator
            }
            "length" | "getline" | "next" | "nextfile" | "break" | "continue" | "fflush"
            | "srand" | "rand" => Before::Either,
            _ => Before::Operand,
        };
        self.advance(end);
    }
}

/// Where the literal that begins here ends: the byte of its last delimiter.
fn literal_end(text: &str, delimiter: char) -> Option<usize> {
    let mut is_escaped = false;
    for (index, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            // awk ends neither at a line's end, and says so.
            '\n' => return None,
            _ if character == delimiter => return Some(index),
            _ => {}
        }
    }
    None
}

fn has_lone_pipe(text: &str) -> bool {
    let runs = text.split(|character| character != '|');
    runs.map(str::len).any(|run| run != 0 && run != 2)
}

/// Whether versions of awk agree that each bracket of the expression is closed.
fn brackets_are_closed(expression: &str) -> bool {
    let mut rest = expression;
    while let Some(start) = unescaped(rest, '[') {
        rest = &rest[start + 1..];
        rest = rest.strip_prefix('^').unwrap_or(rest);
        if rest.starts_with(']') {
            return false;
        }
        loop {
            let (class, close) = (rest.find("[:"), unescaped(rest, ']'));
            match (class, close) {
                (Some(class), Some(close)) if class < close => match rest.find(":]") {
                    Some(end) => rest = &rest[end + 2..],
                    None => return false,
                },
                (_, Some(close)) => {
                    rest = &rest[close + 1..];
                    break;
                }
                (_, None) => return false,
            }
        }
    }
    true
}

fn unescaped(text: &str, wanted: char) -> Option<usize> {
    let mut is_escaped = false;
    for (index, character) in text.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if character == wanted => return Some(index),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_programs_are_allowed() {
        for program in [
            "{ print $1 }",
            "/a|b/ { print }",
            "NR > 1 && $2 == \"x|y\" { s += $3 } END { print s / NR }",
            "{ print (a + b) / 2 }",
            "BEGIN { FS = \"|\" } { print $2 > \"out\" }",
            "!seen[$0]++",
            "$1 ~ /^[a-z|]+$/",
            "{ x = $1 / $2 / $3 } x > 1 || y < 2",
            "{ gsub(/[[:space:]]+|x/, \" \"); print }",
            "# a | b\n{ print }",
            "{ while ((getline line < \"f\") > 0) n++ } END { print n }",
            "length > 72",
            "{print \"a\\\"|b\"}",
            "$NF / 2 > 3 { split($0, a, \"|\") }",
            "/\\|/",
            "{ a[i] = a[i] / 2; print \"|\" }",
        ] {
            assert_eq!(check(program), Ok(()), "{program:?}");
        }
    }

    #[test]
    fn programs_that_run_others_are_denied() {
        for program in [
            "BEGIN { system(\"id\") }",
            "BEGIN{system (\"id\")}",
            "{ print | \"sh\" }",
            "{ print|\"sh\" }",
            "BEGIN { \"id\" | getline x }",
            "{ print $1 |& \"sh\" }",
            "BEGIN { print \"x\" ||| \"sh\" }",
            "{ print a / b | \"sh\" }",
            "{ print \"/\" | \"sh\" }",
            "{ print /x/ | \"sh\" }",
            "{ print (1) / 2 \"/\" | \"sh\" }",
            "{ if (1) /x\"/ ; print | \"sh\" ; y = \"/\" }",
            "{ print x++ / y; z = \"a|b\" }",
            "{ print length / 2 \"|\" }",
            "{ print /[/]\" | \"/ }",
            "/a",
            "{ print \"a",
            "{ print \"\\\\\" | \"sh\" }",
            "{ print # \"\n | \"sh\" }",
            "{ print /[]/] | \"/ }",
            "{ print \\\n| \"sh\" }",
            "{ print $NF++ /1/ 2 | \"sh\" }",
        ] {
            assert!(check(program).is_err(), "{program:?}");
        }
    }
}
