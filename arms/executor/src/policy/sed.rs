//! Programs of sed. The policy starts sed with `--sandbox`, under which sed itself refuses the commands that run
//! programs and open files; this parser refuses them first and says which of them it was.

use super::denied::Denied;

/// What may stand there.
const ALLOWED: &str = "allowed are the commands { } = a b c d D F g G h H i l n N p P q Q s t T x y z : # and the flags \
                       g p i I m M and numbers of s; read files as operands, redirect the output";

/// Checks a program.
///
/// # Errors
/// [`Denied`] names the command that is not allowed, or what can't be read.
pub(super) fn check(program: &str) -> Result<(), Denied> {
    let mut script = Script {
        characters: program.chars().collect(),
        next: 0,
    };
    script
        .commands()
        .map_err(|problem| Denied::new(problem, ALLOWED))
}

struct Script {
    characters: Vec<char>,
    next: usize,
}

impl Script {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.next).copied()
    }

    fn take(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.next += 1;
        Some(character)
    }

    fn skip(&mut self, is_skipped: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&is_skipped) {
            self.next += 1;
        }
    }

    fn spaces(&mut self) {
        self.skip(|character| character.is_ascii_whitespace() && character != '\n');
    }

    fn line(&mut self) {
        self.skip(|character| character != '\n');
    }

    fn commands(&mut self) -> Result<(), String> {
        loop {
            self.skip(|character| character.is_ascii_whitespace() || character == ';');
            self.addresses()?;
            let Some(command) = self.take() else {
                return Ok(());
            };
            match command {
                '{' | '}' => {}
                '#' => self.line(),
                '=' | 'd' | 'D' | 'F' | 'g' | 'G' | 'h' | 'H' | 'n' | 'N' | 'p' | 'P' | 'x'
                | 'z' => {
                    self.end()?;
                }
                'l' | 'q' | 'Q' => {
                    self.spaces();
                    self.skip(|character| character.is_ascii_digit());
                    self.end()?;
                }
                ':' | 'b' | 't' | 'T' => {
                    self.skip(|character| !matches!(character, '\n' | ';' | '}'));
                }
                'a' | 'i' | 'c' => self.text(),
                's' => self.substitution()?,
                'y' => {
                    let delimiter = self.delimiter()?;
                    self.until(delimiter)?;
                    self.until(delimiter)?;
                    self.end()?;
                }
                'e' => return Err("has the command e, which runs a program".to_owned()),
                'r' | 'R' => return Err(format!("has the command {command}, which reads a file")),
                'w' | 'W' => return Err(format!("has the command {command}, which writes a file")),
                other => return Err(format!("has {other:?} where a command is expected")),
            }
        }
    }

    /// No address, one, or two; then perhaps `!`.
    fn addresses(&mut self) -> Result<(), String> {
        self.address()?;
        self.spaces();
        if self.peek() == Some(',') {
            self.next += 1;
            self.spaces();
            self.address()?;
            self.spaces();
        }
        self.skip(|character| character == '!' || character == ' ');
        Ok(())
    }

    fn address(&mut self) -> Result<(), String> {
        match self.peek() {
            Some('0'..='9' | '+' | '~' | '$') => {
                self.skip(|character| matches!(character, '0'..='9' | '+' | '~' | '$'));
                Ok(())
            }
            Some('/') => {
                self.next += 1;
                self.until('/')?;
                self.skip(|character| matches!(character, 'I' | 'M'));
                Ok(())
            }
            Some('\\') => {
                self.next += 1;
                let delimiter = self.delimiter()?;
                self.until(delimiter)?;
                self.skip(|character| matches!(character, 'I' | 'M'));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn delimiter(&mut self) -> Result<char, String> {
        match self.take() {
            Some(delimiter) if delimiter != '\n' && delimiter != '\\' => Ok(delimiter),
            _ => Err("has no delimiter behind a command that takes one".to_owned()),
        }
    }

    /// Up to the delimiter. sed knows no brackets here.
    fn until(&mut self, delimiter: char) -> Result<(), String> {
        loop {
            match self.take() {
                Some(character) if character == delimiter => return Ok(()),
                Some('\\') => {
                    self.next += 1;
                }
                Some(_) => {}
                None => return Err(format!("lacks a {delimiter:?}")),
            }
        }
    }

    fn substitution(&mut self) -> Result<(), String> {
        let delimiter = self.delimiter()?;
        self.until(delimiter)?;
        self.until(delimiter)?;
        loop {
            match self.peek() {
                Some('g' | 'p' | 'i' | 'I' | 'm' | 'M' | '0'..='9') => self.next += 1,
                Some('e') => return Err("has the flag e of s, which runs a program".to_owned()),
                Some('w') => return Err("has the flag w of s, which writes a file".to_owned()),
                _ => return self.end(),
            }
        }
    }

    /// The text of a, i and c: the rest of the line, and further lines after a backslash.
    fn text(&mut self) {
        while let Some(character) = self.take() {
            match character {
                '\\' => self.next += 1,
                '\n' => return,
                _ => {}
            }
        }
    }

    fn end(&mut self) -> Result<(), String> {
        self.spaces();
        match self.peek() {
            None | Some('\n' | ';' | '}' | '#') => Ok(()),
            Some(other) => Err(format!("has {other:?} where a command must end")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_programs_are_allowed() {
        for program in [
            "s/a/b/",
            "s|/etc|/w|g",
            "s/\\//x/2gI",
            "1,$p",
            "/x/,/y/!d",
            "$!N;P;D",
            "5q",
            "y/abc/ABC/",
            "\\,a,Id",
            "1~2{s/a/b/;p}",
            "a\\\nwe read e w r\n",
            "i hello; w",
            ":a;N;$!ba;s/\\n/ /g",
            "# w x\np",
            "",
            "0,/x/s//y/",
            "2,+3d",
            "s/e/w/;s/w/e/p",
            "/[;]/d",
            "n;d",
            "$=",
            "l 5",
            "s/a/\\\n/",
        ] {
            assert_eq!(check(program), Ok(()), "{program:?}");
        }
    }

    #[test]
    fn programs_that_run_read_or_write_are_denied() {
        for program in [
            "e",
            "1e ls",
            "s/a/b/e",
            "s/a/id/ge",
            "s/a/b/w out",
            "s/a/b/gpw/dev/stdout",
            "w out",
            "r /etc/passwd",
            "$R x",
            "/a/W x",
            "p;e",
            "{p;e ls\n}",
            "/x/{r y\n}",
            "a x\ne ls",
            "a x\\\ny\nw z",
            "y/a/b/;w x",
            "\\,w,e",
            "!e",
            "1!w x",
            ":a;e",
            "b;e",
            "b a\ne",
            "}e",
            "v;e",
            "s/a/b",
            "s",
            "k",
            "# x\ne",
            "=w x",
        ] {
            assert!(check(program).is_err(), "{program:?}");
        }
    }
}
