//! How a program's end is told to a client, on the error channel.

use crate::exec::Exit;
use serde_json::{Value, json};

/// What became of the program that a client ran or watched; the error is why it could not be, in upstream's words.
pub type Outcome = Result<Exit, String>;

/// The bytes for the error channel. From version 4 of the protocols on it is a `metav1.Status`; before, nothing for a
/// success and a text for a failure.
pub fn encode(outcome: &Outcome, command: &[String], version: u8) -> Vec<u8> {
    let status = status(outcome, command);
    if version >= 4 {
        return status.to_string().into_bytes();
    }
    status["message"].as_str().unwrap_or_default().as_bytes().to_vec()
}

fn status(outcome: &Outcome, command: &[String]) -> Value {
    match outcome {
        Ok(Exit { code: 0, .. }) => json!({"metadata": {}, "status": "Success"}),
        Ok(exit) => {
            let code = exit.code;
            let ran = command.join(" ");
            json!({
                "metadata": {},
                "status": "Failure",
                "message": format!(
                    "command terminated with non-zero exit code: error executing command [{ran}], exit code {code}"
                ),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            })
        }
        Err(why) => {
            json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {why}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": why}]},
                "code": 500,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(outcome: Outcome, version: u8) -> String {
        let command = ["sh".to_owned(), "-c".to_owned()];
        String::from_utf8(encode(&outcome, &command, version)).expect("text")
    }

    const fn ended(code: i32) -> Outcome {
        Ok(Exit { code, signal: None })
    }

    #[test]
    fn an_exit_code_is_a_cause() {
        assert_eq!(told(ended(0), 4), r#"{"metadata":{},"status":"Success"}"#);
        let failure: Value = serde_json::from_str(&told(ended(3), 5)).expect("JSON");
        assert_eq!(failure["reason"], "NonZeroExitCode");
        assert_eq!(
            failure["details"]["causes"],
            json!([{"reason": "ExitCode", "message": "3"}])
        );
    }

    #[test]
    fn a_program_that_did_not_start_is_an_internal_error_in_upstreams_words() {
        let failure: Value =
            serde_json::from_str(&told(Err("error executing command in container: gone".into()), 4))
                .expect("JSON");
        assert_eq!(
            failure["message"],
            "Internal error occurred: error executing command in container: gone"
        );
        assert_eq!(
            (&failure["code"], &failure["reason"]),
            (&json!(500), &json!("InternalError"))
        );
    }

    #[test]
    fn old_protocols_tell_only_failures_as_text() {
        assert_eq!(told(ended(0), 3), "");
        assert!(told(ended(1), 1).starts_with("command terminated with non-zero exit code"));
    }
}
