//! Answers, in CM's manner and in that of the web server in front of it.

/// An HTTP answer before it is written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: Option<&'static str>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            content_type: Some("application/json; charset=utf-8"),
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub(super) fn no_content() -> Self {
        Self { status: 204, content_type: None, headers: Vec::new(), body: Vec::new() }
    }

    /// What the web server says by itself: a page, whatever was asked for.
    pub(super) fn html(status: u16) -> Self {
        let reason = reason(status);
        let page = format!(
            "<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Strict//EN\">\r\n<html>\r\n\
             <head><title>{status} - {reason}</title></head>\r\n\
             <body><h1>Server Error</h1><h2>{status} - {reason}</h2></body>\r\n</html>\r\n"
        );
        Self { content_type: Some("text/html"), ..Self::json(status, page) }
    }

    pub(super) fn forbidden() -> Self {
        let message = r#"{"Message":"Authorization has been denied for this request."}"#;
        Self::json(403, message)
    }

    pub(super) fn failure(correlation: uuid::Uuid) -> Self {
        let message =
            format!(r#"{{"Message":"An internal error occurred. Correlation id: {correlation}"}}"#);
        Self::json(500, message)
    }

    pub(super) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

pub(super) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}
