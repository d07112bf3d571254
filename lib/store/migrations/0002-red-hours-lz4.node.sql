-- Migration 2: the buckets of `red_hours` are LZ4, which unpacks faster.

ALTER TABLE `${database}`.`red_hours` MODIFY COLUMN `buckets` SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(LZ4);
