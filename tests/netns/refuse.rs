//! pasta joining a namespace that exists already, in the background.
