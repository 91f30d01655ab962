//! sealed local state of a device and its openmls storage provider
