//! What a person should do about a dev server that ended, where its last words
//! show that it lacks something which a preview has to be given.

/// Ways to say that nobody listens there.
const NOBODY: [&str; 4] = ["econnrefused", "connection refused", "can't connect to", "error 111"];

/// Ways to name the container itself.
const ITSELF: [&str; 3] = ["127.0.0.1", "localhost", "::1"];

/// The rest of the sentence, or nothing.
pub(super) fn of(log: &[String]) -> &'static str {
    let any = |is_it: &dyn Fn(&str) -> bool| log.iter().any(|line| is_it(&line.to_lowercase()));
    if any(&|line| line.contains("erofs") || line.contains("read-only file system")) {
        ", because it writes to the workspace, which is read-only: name the place in \
         `preview.writable` of .covibes.yml, or set `preview.mode: mirror`"
    } else if any(&|line| {
        line.contains("docker: not found") || line.contains("docker: command not found")
    }) {
        ", because there is no Docker in a preview: name the command that starts the app itself \
         in `preview.command` of .covibes.yml"
    } else if any(&|line| {
        let names = |words: &[&str]| words.iter().any(|word| line.contains(word));
        names(&NOBODY) && names(&ITSELF)
    }) {
        ", because it wants a service on localhost, and a preview runs the dev server alone: set \
         the service's address in `preview.env` of .covibes.yml"
    } else if any(&|line| {
        line.contains(".env: not found")
            || (line.contains(".env'") && line.contains("no such file"))
    }) {
        ", because its .env file is not in the workspace: put one there, or its values into \
         `preview.env` of .covibes.yml"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_known_from_last_words() {
        for (line, word) in [
            ("Error: EROFS: read-only file system, open 'x'", "preview.writable"),
            ("sh: 1: docker: not found", "preview.command"),
            ("Error: connect ECONNREFUSED 127.0.0.1:5432", "localhost"),
            ("Error: connect ECONNREFUSED ::1:6379", "localhost"),
            (
                "connection to server at \"localhost\" (127.0.0.1), port 5432 failed: Connection refused",
                "localhost",
            ),
            ("Can't connect to MySQL server on 'localhost:3306' (111)", "localhost"),
            ("Error 111 connecting to localhost:6379. Connection refused.", "localhost"),
            ("node: .env: not found", ".env file"),
            ("Error: ENOENT: no such file or directory, open '/workspace/.env'", ".env file"),
        ] {
            let said = of(&[line.to_owned()]);
            assert!(said.contains(word), "{line}: {said}");
        }
        for line in ["Error: connect ECONNREFUSED 10.0.0.1:5432", "loaded .env", "sh: x: not found"]
        {
            assert_eq!(of(&[line.to_owned()]), "", "{line}");
        }
    }
}
