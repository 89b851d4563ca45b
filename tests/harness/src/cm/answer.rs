//! Answers, as CM gives them and as the web server in front of it does.

/// Who speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Origin {
    /// IIS, or CM through it.
    #[default]
    Iis,
    /// The driver before it, which closes the connection after an error.
    Driver,
}

/// An HTTP answer before it is written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: Option<&'static str>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    pub(super) origin: Origin,
}

impl Answer {
    pub(super) fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            content_type: Some("application/json; charset=utf-8"),
            headers: Vec::new(),
            body: body.into(),
            origin: Origin::Iis,
        }
    }

    pub(super) fn no_content() -> Self {
        Self { content_type: None, ..Self::json(204, "") }
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
        301 => "Moved Permanently",
        302 => "Redirect",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        413 => "Request Entity Too Large",
        429 => "Too Many Requests",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}
