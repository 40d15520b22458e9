ALTER TABLE "assay"."api_keys" ADD COLUMN "retry_digest" "bytea";--> statement-breakpoint
ALTER TABLE "assay"."resource_servers" ADD COLUMN "retry_digest" "bytea";--> statement-breakpoint
ALTER TABLE "assay"."api_keys" ADD CONSTRAINT "api_keys_retry" UNIQUE("retry_digest");--> statement-breakpoint
ALTER TABLE "assay"."resource_servers" ADD CONSTRAINT "resource_servers_retry" UNIQUE("retry_digest");