//! The bearer token of a team.
//!
//! The token comes from a file, is compared in constant time and never appears
//! in a log, an error or `Debug` output.

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::http::ApiError;
use super::{Environment, SettingError};

/// The variable that names the token's file.
pub const TOKEN_FILE: &str = "COVIBES_TOKEN_FILE";

/// A shorter token could be guessed over the network.
const TOKEN_BYTES_MIN: usize = 16;
/// No token is longer; a bigger file is a mistake.
const TOKEN_BYTES_MAX: usize = 4096;

/// A secret word that a caller must know.
#[derive(Clone)]
pub struct Token(Arc<[u8; 32]>);

impl Token {
    /// Reads the token from the file that `COVIBES_TOKEN_FILE` names.
    ///
    /// # Errors
    /// Fails when the variable is unset, and when the file is missing, empty or no token.
    pub fn from_environment(environment: &Environment) -> Result<Self, SettingError> {
        let path = environment
            .path_if_set(TOKEN_FILE)
            .ok_or(SettingError::Missing { name: TOKEN_FILE })?;
        let text = std::fs::read_to_string(&path).map_err(|source| SettingError::File {
            name: TOKEN_FILE,
            path,
            source,
        })?;
        Self::parse(&text)
    }

    /// Takes a token as it stands in its file, with or without a final newline.
    pub fn parse(text: &str) -> Result<Self, SettingError> {
        let word = text.trim();
        let length = TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX;
        if !length.contains(&word.len()) || !word.bytes().all(|byte| byte.is_ascii_graphic()) {
            let expected = "a file with one word of 16 to 4096 printable characters";
            return Err(SettingError::Invalid { name: TOKEN_FILE, expected });
        }
        Ok(Self(Arc::new(Sha256::digest(word).into())))
    }

    /// Tells whether the `Authorization` header carries this token.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let presented = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().split_first_chunk::<7>())
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
            .map(|(_, word)| word.trim_ascii());
        let Some(word) = presented else { return false };
        let presented: [u8; 32] = Sha256::digest(word).into();
        // Hashes of equal length and no early exit: time tells nothing of the token.
        let difference = presented.iter().zip(self.0.iter()).fold(0, |all, (a, b)| all | (a ^ b));
        black_box(difference) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(..)")
    }
}

/// Refuses a request without the token.
pub async fn require_token(State(token): State<Token>, request: Request, next: Next) -> Response {
    if token.admits(request.headers()) {
        return next.run(request).await;
    }
    let error =
        ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", "This needs the team's token");
    ([(header::WWW_AUTHENTICATE, "Bearer")], error).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(authorization: &str, admitted: bool) {
        let token = Token::parse("0123456789abcdef\n").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        assert_eq!(token.admits(&headers), admitted, "{authorization}");
    }

    #[test]
    fn only_the_whole_token_admits() {
        check("Bearer 0123456789abcdef", true);
        check("bearer 0123456789abcdef", true);
        check("Bearer 0123456789abcdeF", false);
        check("Bearer 0123456789abcde", false);
        check("Bearer ", false);
        check("Basic 0123456789abcdef", false);
        check("0123456789abcdef", false);
    }

    #[test]
    fn a_token_file_without_a_token_is_refused() {
        for text in ["", "\n", "short", "two words here, long enough"] {
            assert!(Token::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_token_is_never_printed() {
        let token = Token::parse("0123456789abcdef").unwrap();
        assert_eq!(format!("{token:?}"), "Token(..)");
    }
}
