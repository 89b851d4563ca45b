//! The source of tokens in simulated time, and what is made of answers and key files. How all of it
//! looks on the wire is tested in `remote::tests::oauth2`.

mod answers;
mod keys;
mod source;
