-- Migration 5: collectors write `red_hours` themselves, under a token of their own, since ClickHouse knows an
-- insert of a materialised view by another token once the server was restarted. The view still takes what
-- collectors of earlier releases write.

ALTER TABLE `${database}`.`red` ADD COLUMN IF NOT EXISTS `in_hours` SimpleAggregateFunction(max, UInt8) CODEC(ZSTD(1));

ALTER TABLE `${database}`.`red_hours_feed` MODIFY QUERY SELECT
    tenant,
    toStartOfHour(minute) AS hour,
    service,
    name,
    kind,
    sum(m.count) AS count,
    sumIf(m.count, status = 'ERROR') AS error_count,
    sum(m.duration_sum_ns) AS duration_sum_ns,
    sumMap(m.buckets) AS buckets,
    sum(m.duration_total_ns) AS duration_total_ns,
    min(m.duration_min_ns) AS duration_min_ns,
    max(m.duration_max_ns) AS duration_max_ns
FROM `${database}`.`red` AS m
WHERE NOT m.in_hours
GROUP BY tenant, hour, service, name, kind;
