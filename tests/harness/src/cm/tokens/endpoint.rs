//! The token endpoint: a form in, a token or an error out.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::json;
use uuid::Uuid;

use super::super::answer::Answer;
use super::super::http::Call;
use super::assertion::{self, Expected};
use super::{ClientProof, Inner, Issued, Proof, Refusal, TOKEN_PATH, TokenRequest, Verdict};

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

type Form = HashMap<String, String>;

pub(super) fn answer(inner: &mut Inner, call: &Call) -> Answer {
    if call.method != "POST" {
        return Answer::html(405).with_header("Allow", "POST");
    }
    let form: Form = form_urlencoded::parse(&call.body).into_owned().collect();
    let verdict = judge(inner, call, &form);
    inner.requests.push(TokenRequest {
        client_id: form.get("client_id").cloned().unwrap_or_default(),
        proof: proof(&form),
        resource: form.get("resource").cloned(),
        scope: form.get("scope").cloned(),
        refused: verdict.as_ref().err().map(|refusal| refusal.reason.clone()),
    });
    match verdict {
        Ok(()) => granted(inner, &form),
        Err(Refusal { error, description, .. }) => refused(error, description),
    }
}

/// An error in OAuth's form.
pub(super) fn refused(error: &str, description: &str) -> Answer {
    let body = json!({ "error": error, "error_description": description });
    Answer::json(400, body.to_string()).with_header("Cache-Control", "no-store")
}

fn granted(inner: &mut Inner, form: &Form) -> Answer {
    let token = format!("eyJ0eXAiOiJKV1QifQ.{}.{}", Uuid::new_v4(), Uuid::new_v4());
    let for_cm = form.contains_key("resource");
    let life = inner.life;
    inner.issued.insert(token.clone(), Issued { until: Instant::now() + life, for_cm });
    let body =
        json!({ "access_token": token, "token_type": "bearer", "expires_in": life.as_secs() });
    Answer::json(200, body.to_string()).with_header("Cache-Control", "no-store")
}

fn judge(inner: &mut Inner, call: &Call, form: &Form) -> Verdict<()> {
    let content_type = call.header("content-type").unwrap_or_default();
    if !content_type.starts_with("application/x-www-form-urlencoded") {
        return Err(bad_request(format!("the body is {content_type:?}, not a form")));
    }
    let grant = form.get("grant_type").map_or("", String::as_str);
    if grant != "client_credentials" {
        let error = "unsupported_grant_type";
        let reason = format!("grant_type is {grant:?}");
        return Err(Refusal { error, ..bad_request(reason) });
    }
    let client_id = form.get("client_id").cloned().unwrap_or_default();
    if !inner.clients.iter().any(|(known, _)| *known == client_id) {
        return Err(Refusal {
            error: "invalid_client",
            description: "MSIS9607: The 'client_id' parameter in the request is invalid. \
                          No registered client is found with this identifier.",
            reason: format!("no client {client_id:?}"),
        });
    }
    authenticate(inner, call, form, &client_id).map_err(not_authenticated)?;
    match form.get("resource") {
        Some(resource) if *resource != inner.resource => Err(Refusal {
            error: "invalid_resource",
            description: "MSIS9602: The received 'resource' parameter is invalid. The \
                          authorization server can not find a registered resource with the \
                          specified identifier.",
            reason: format!("no resource {resource:?}"),
        }),
        // Without one the token is for AD FS itself: given, and of no use here.
        Some(_) | None => Ok(()),
    }
}

fn bad_request(reason: String) -> Refusal {
    let description = "MSIS9321: Received invalid OAuth request.";
    Refusal { error: "invalid_request", description, reason }
}

fn not_authenticated(reason: String) -> Refusal {
    let description = "MSIS9622: Client authentication failed. Please verify the credential \
                       provided for client authentication is valid.";
    Refusal { error: "invalid_client", description, reason }
}

fn proof(form: &Form) -> ClientProof {
    if form.contains_key("client_secret") {
        ClientProof::Secret
    } else if form.contains_key("client_assertion") {
        ClientProof::Assertion
    } else if form.get("use_windows_client_authentication").is_some_and(|text| text == "true") {
        ClientProof::Windows
    } else {
        ClientProof::None
    }
}

fn authenticate(
    inner: &mut Inner,
    call: &Call,
    form: &Form,
    client_id: &str,
) -> Result<(), String> {
    let mut proofs = inner.clients.iter().filter(|(id, _)| id == client_id).map(|(_, how)| how);
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    match proof(form) {
        ClientProof::None => Err("no proof".to_owned()),
        ClientProof::Secret => {
            let given = field("client_secret");
            let right = |proof: &Proof| matches!(proof, Proof::Secret(secret) if secret == given);
            proofs.any(right).then_some(()).ok_or_else(|| "wrong secret".to_owned())
        }
        ClientProof::Windows => {
            let user = call.header("x-remote-user").unwrap_or_default();
            let right = |proof: &Proof| matches!(proof, Proof::User(known) if known == user);
            proofs.any(right).then_some(()).ok_or_else(|| format!("not its account: {user:?}"))
        }
        ClientProof::Assertion => {
            if field("client_assertion_type") != JWT_BEARER {
                return Err("client_assertion_type is not jwt-bearer".to_owned());
            }
            let registered = proofs.find_map(|proof| match proof {
                Proof::Certificate(registered) => Some(registered),
                Proof::Secret(_) | Proof::User(_) => None,
            });
            let registered = registered.ok_or("no certificate is registered")?;
            let host = call.header("host").unwrap_or_default();
            let audience = format!("://{host}{TOKEN_PATH}");
            let expected = Expected { registered, client_id, audience: &audience };
            let id = assertion::check(field("client_assertion"), &expected)?;
            inner.used.insert(id).then_some(()).ok_or_else(|| "jti was used before".to_owned())
        }
    }
}
