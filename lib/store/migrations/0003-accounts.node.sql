-- Migration 3: what became of spans, by the minute.

CREATE TABLE IF NOT EXISTS `${database}`.`accounts`
(
    `tenant` LowCardinality(String) DEFAULT '' CODEC(ZSTD(1)),
    `minute` DateTime CODEC(Delta(4), ZSTD(1)),
    `node` LowCardinality(String) CODEC(ZSTD(1)),
    `agent` LowCardinality(String) CODEC(ZSTD(1)),
    `stage` LowCardinality(String) CODEC(ZSTD(1)),
    `reason` LowCardinality(String) CODEC(ZSTD(1)),
    `spans` SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    `bytes` SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toDate(minute)
ORDER BY (tenant, minute, node, agent, stage, reason)
TTL minute + toIntervalSecond(${retention_seconds})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = ${deduplication_window};
