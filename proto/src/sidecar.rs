//! Sidecars and collectors: `proto/spanloom/sidecar/v1/sidecar.proto`.

/// The version that is written.
pub const VERSION: u32 = 1;

/// How large a message of [`FORWARD`] may be, compressed and not, in bytes.
pub const MAX_FORWARD_BYTES: usize = 8 << 20;

/// The method that takes spans and measures.
pub const FORWARD: &str = "/spanloom.sidecar.v1.SidecarService/Forward";

/// The method by which a sidecar gets its configuration.
pub const CONFIGURE: &str = "/spanloom.sidecar.v1.SidecarService/Configure";

/// The first version of the messages.
pub mod v1 {
    use bytes::Bytes;

    /// Spans and measures.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ForwardRequest {
        /// The version of the contract.
        #[prost(uint32, tag = "1")]
        pub version: u32,
        /// The sidecar's pod. It must be the one in its token.
        #[prost(string, tag = "2")]
        pub pod_uid: String,
        /// 16 random bytes, of this process of the sidecar.
        #[prost(bytes = "bytes", tag = "3")]
        pub instance: Bytes,
        /// Counts the requests of this process from 1, so that no two of them are the same bytes.
        #[prost(uint64, tag = "4")]
        pub sequence: u64,
        /// The hash of the configuration that all the spans were processed by; empty where there is more than one,
        /// or a later one was refused. Then the collector applies its own.
        #[prost(string, tag = "5")]
        pub config_hash: String,
        /// Spans: records, which are an OTLP `ExportTraceServiceRequest`.
        #[prost(bytes = "bytes", tag = "6")]
        pub records: Bytes,
        /// What was sampled away, as rates, errors, durations and half-edges; and accounts.
        #[prost(bytes = "bytes", tag = "7")]
        pub measures: Bytes,
    }

    /// The answer to a [`ForwardRequest`] that was taken.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ForwardResponse {
        /// Spans that the collector does not take.
        #[prost(uint64, tag = "1")]
        pub rejected_spans: u64,
        /// Why.
        #[prost(string, tag = "2")]
        pub message: String,
    }

    /// What a sidecar says of itself.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ConfigureRequest {
        /// The version of the contract.
        #[prost(uint32, tag = "1")]
        pub version: u32,
        /// The sidecar's pod. It must be the one in its token.
        #[prost(string, tag = "2")]
        pub pod_uid: String,
        /// 16 random bytes, of this process of the sidecar.
        #[prost(bytes = "bytes", tag = "3")]
        pub instance: Bytes,
        /// The program's version, for people.
        #[prost(string, tag = "4")]
        pub program_version: String,
        /// The capabilities that it has.
        #[prost(string, repeated, tag = "5")]
        pub understands: Vec<String>,
        /// The hash of the configuration in use.
        #[prost(string, tag = "6")]
        pub applied: String,
        /// The hash of the last configuration that it refused since then.
        #[prost(string, tag = "7")]
        pub refused: String,
        /// Why it was refused.
        #[prost(string, tag = "8")]
        pub error: String,
    }

    /// A sidecar's configuration.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ConfigureResponse {
        /// The version of the contract.
        #[prost(uint32, tag = "1")]
        pub version: u32,
        /// The hash of the collector's configuration that it is a part of.
        #[prost(string, tag = "2")]
        pub hash: String,
        /// JSON: `SidecarConfig` of `crds/src/sidecar.rs`.
        #[prost(bytes = "bytes", tag = "3")]
        pub configuration: Bytes,
        /// The authorities that collectors' certificates are checked against, in PEM; empty: no change.
        #[prost(bytes = "bytes", tag = "4")]
        pub ca: Bytes,
    }
}
