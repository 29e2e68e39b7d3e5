//! What a failed install's output says about its cause, as a code of its own
//! where a person can do something particular about it.

use crate::domain::failure::Code;

/// How a cause is recognised.
struct Sign {
    /// All of these stand in one line, in any case.
    words: &'static [&'static str],
    code: Code,
}

const fn sign(words: &'static [&'static str], code: Code) -> Sign {
    Sign { words, code }
}

/// In this order: a full disk breaks everything else, and a tool that lacks
/// credentials or a way out says more than the error that follows from it.
const SIGNS: &[Sign] = &[
    sign(&["enospc"], Code::BuildDiskFull),
    sign(&["no space left on device"], Code::BuildDiskFull),
    sign(&["disk quota exceeded"], Code::BuildDiskFull),
    // The egress proxy's answer, as each client tells it.
    sign(&["403", "after connect"], Code::BuildHostNotAllowed),
    sign(&["tunnel connection failed", "403"], Code::BuildHostNotAllowed),
    sign(&["tunneling socket", "statuscode=403"], Code::BuildHostNotAllowed),
    sign(&["proxy response (403)"], Code::BuildHostNotAllowed),
    // npm names the address in a line after its code.
    sign(&["npm error 401", "unauthorized - "], Code::BuildRegistryCredentials),
    sign(&["npm error 403", "forbidden - "], Code::BuildRegistryCredentials),
    sign(&["npm error code e401"], Code::BuildRegistryCredentials),
    sign(&["npm error code eneedauth"], Code::BuildRegistryCredentials),
    sign(&["npm error code e403"], Code::BuildRegistryCredentials),
    sign(&["err_pnpm_fetch_401"], Code::BuildRegistryCredentials),
    sign(&["err_pnpm_fetch_403"], Code::BuildRegistryCredentials),
    sign(&["yn0041"], Code::BuildRegistryCredentials),
    sign(&["response code: 401"], Code::BuildRegistryCredentials),
    sign(&["request failed \"401"], Code::BuildRegistryCredentials),
    sign(&["error: get", "- 401"], Code::BuildRegistryCredentials),
    sign(&["401 error, credentials not correct"], Code::BuildRegistryCredentials),
    sign(&["401 client error"], Code::BuildRegistryCredentials),
    sign(&["status client error (401"], Code::BuildRegistryCredentials),
    // pip asks, and nobody is there to answer.
    sign(&["user for ", "error: exception"], Code::BuildRegistryCredentials),
    sign(&["could not read username for"], Code::BuildRegistryCredentials),
    sign(&["can only install packages when your package.json and"], Code::BuildLockfileOutdated),
    sign(&["err_pnpm_outdated_lockfile"], Code::BuildLockfileOutdated),
    sign(&["your lockfile needs to be updated"], Code::BuildLockfileOutdated),
    sign(&["yn0028", "explicitly forbidden"], Code::BuildLockfileOutdated),
    sign(&["lockfile had changes, but lockfile is frozen"], Code::BuildLockfileOutdated),
    sign(&["needs to be updated, but `--"], Code::BuildLockfileOutdated),
    sign(&["changed significantly since poetry.lock"], Code::BuildLockfileOutdated),
    sign(&["pipfile.lock", "out of date"], Code::BuildLockfileOutdated),
    sign(&["deployexception"], Code::BuildLockfileOutdated),
    // Made by a tool of another age than the one that reads it.
    sign(&["err_pnpm_lockfile_breaking_change"], Code::BuildLockfileOutdated),
    sign(&["lock file is not compatible with the current version"], Code::BuildLockfileOutdated),
    sign(&["lockfile", "unsupported schema version"], Code::BuildLockfileOutdated),
    sign(&["unknown lockfile version"], Code::BuildLockfileOutdated),
    sign(&["npm error code ebadengine"], Code::BuildRuntimeVersion),
    sign(&["err_pnpm_unsupported_engine"], Code::BuildRuntimeVersion),
    sign(&["the engine \"node\" is incompatible"], Code::BuildRuntimeVersion),
    sign(&["requires a different python"], Code::BuildRuntimeVersion),
    sign(&["no interpreter found for python"], Code::BuildRuntimeVersion),
    sign(&["current python version", "is not allowed by the project"], Code::BuildRuntimeVersion),
    sign(&["is incompatible with the project's python requirement"], Code::BuildRuntimeVersion),
    sign(&["pg_config executable not found"], Code::BuildSystemLibrary),
    sign(&["mysql_config not found"], Code::BuildSystemLibrary),
    sign(&["fatal error:", ".h: no such file or directory"], Code::BuildSystemLibrary),
    sign(&["cannot find -l"], Code::BuildSystemLibrary),
    sign(&["gyp err! find python"], Code::BuildSystemLibrary),
    sign(&["gyp err! stack error: not found: make"], Code::BuildSystemLibrary),
    sign(&["error: command", "gcc", "failed"], Code::BuildSystemLibrary),
    sign(&["unable to execute 'gcc'"], Code::BuildSystemLibrary),
    sign(&["did not find pkg-config"], Code::BuildSystemLibrary),
];

/// The cause of a failed install, with the line that says it.
#[must_use]
pub fn cause(lines: &[String]) -> Option<(Code, String)> {
    let lowered: Vec<String> = lines.iter().map(|line| line.to_lowercase()).collect();
    SIGNS.iter().find_map(|sign| {
        let is_it = |line: &String| sign.words.iter().all(|word| line.contains(word));
        let at = lowered.iter().position(is_it)?;
        Some((sign.code, lines[at].trim().chars().take(300).collect()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(output: &str, expected: Option<Code>) {
        let lines: Vec<String> = output.lines().map(str::to_owned).collect();
        assert_eq!(cause(&lines).map(|(code, _)| code), expected, "{output}");
    }

    /// Outputs of npm 11, pnpm 10, yarn 1.22 and 4, bun 1.4, uv 0.13, poetry 2,
    /// pipenv and pip 23, run on projects made to fail.
    #[test]
    fn a_lockfile_that_is_out_of_date_is_known() {
        for output in [
            "npm error code EUSAGE\nnpm error\nnpm error `npm ci` can only install packages when your \
             package.json and package-lock.json or npm-shrinkwrap.json are in sync. Please update your \
             lock file with `npm install` before continuing.",
            " ERR_PNPM_OUTDATED_LOCKFILE  Cannot install with \"frozen-lockfile\" because pnpm-lock.yaml \
             is not up to date with <ROOT>/package.json",
            "[1/4] Resolving packages...\nerror Your lockfile needs to be updated, but yarn was run with \
             `--frozen-lockfile`.",
            "➤ YN0028: │ -  checksum: 10c0/34476\n➤ YN0028: │ The lockfile would have been modified by \
             this install, which is explicitly forbidden.",
            "error: lockfile had changes, but lockfile is frozen\nnote: dependencies in package.json \
             changed since bun.lock was saved: is-odd changed from 3.0.1 to 3.0.0",
            "Resolved 2 packages in 373ms\nerror: The lockfile at `uv.lock` needs to be updated, but \
             `--locked` was provided.",
            "pyproject.toml changed significantly since poetry.lock was last generated. Run `poetry \
             lock` to fix the lock file.",
            "[DeployException]:       raise exceptions.DeployException\nERROR:: Aborting deploy",
            " ERR_PNPM_LOCKFILE_BREAKING_CHANGE  Lockfile /workspace/pnpm-lock.yaml not compatible with \
             current pnpm\nRun with the --force parameter to recreate the lockfile.",
        ] {
            check(output, Some(Code::BuildLockfileOutdated));
        }
    }

    #[test]
    fn a_registry_that_refuses_is_named() {
        let lines = [
            "npm error code E403",
            "npm error 403 403 Forbidden - GET https://npm.acme.example/@acme/ui/-/ui-1.0.0.tgz",
        ];
        let (code, line) = cause(&lines.map(str::to_owned)).unwrap();
        assert_eq!(code, Code::BuildRegistryCredentials);
        assert_eq!(line, lines[1]);
    }

    #[test]
    fn a_runtime_of_another_version_is_known() {
        for output in [
            "npm error code EBADENGINE\nnpm error engine Unsupported engine\nnpm error notsup Required: \
             {\"node\":\">=99\"}",
            " ERR_PNPM_UNSUPPORTED_ENGINE  Unsupported environment (bad pnpm and/or Node.js version)",
            "error b@1.0.0: The engine \"node\" is incompatible with this module. Expected version \
             \">=99\". Got \"20.20.2\"",
            "ERROR: Package 'p' requires a different Python: 3.11.7 not in '>=3.99'",
            "error: No interpreter found for Python >=3.99 in managed installations or search path",
            "Current Python version (3.11.7) is not allowed by the project (>=3.99).",
        ] {
            check(output, Some(Code::BuildRuntimeVersion));
        }
    }

    #[test]
    fn a_registry_that_wants_credentials_is_known() {
        for output in [
            "npm error code E401\nnpm error Incorrect or missing password.",
            " ERR_PNPM_FETCH_401  GET http://127.0.0.1:4873/@acme%2Fthing: Unauthorized - 401",
            "error: GET http://127.0.0.1:4873/@acme%2fthing - 401\nerror: @acme/thing@1.0.0 failed to \
             resolve",
            "Looking in indexes: http://127.0.0.1:4873/simple\nUser for 127.0.0.1:4873: ERROR: \
             Exception:\nTraceback (most recent call last):",
        ] {
            check(output, Some(Code::BuildRegistryCredentials));
        }
    }

    #[test]
    fn a_missing_library_or_compiler_is_known() {
        for output in [
            "      Error: pg_config executable not found.\n\n      pg_config is required to build \
             psycopg2 from source.",
            "src/canvas.cc:3:10: fatal error: cairo.h: No such file or directory",
            "gyp ERR! stack Error: not found: make",
            "error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory",
        ] {
            check(output, Some(Code::BuildSystemLibrary));
        }
    }

    #[test]
    fn a_full_disk_and_a_closed_way_out_come_first() {
        check(
            "npm error code ENOSPC\nnpm error syscall write\nnpm error errno -28\nnpm error nospc \
             ENOSPC: no space left on device, write",
            Some(Code::BuildDiskFull),
        );
        check("OSError: [Errno 28] No space left on device", Some(Code::BuildDiskFull));
        check(
            "fatal: unable to access 'https://example.org/a.git/': Received HTTP code 403 from proxy \
             after CONNECT",
            Some(Code::BuildHostNotAllowed),
        );
        check(
            "WARNING: Retrying: ProxyError('Cannot connect to proxy.', OSError('Tunnel connection \
             failed: 403 Forbidden'))",
            Some(Code::BuildHostNotAllowed),
        );
    }

    #[test]
    fn what_a_project_does_wrong_by_itself_has_no_such_cause() {
        check("the install gives up\nnpm error code 3\nnpm error command sh -c node fail.js", None);
        check("", None);
    }
}
