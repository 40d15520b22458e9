ALTER TABLE "assay"."customers" ADD COLUMN "scopes" text;--> statement-breakpoint
ALTER TABLE "assay"."customers" ADD COLUMN "access_token_ttl" integer;--> statement-breakpoint
ALTER TABLE "assay"."customers" ADD COLUMN "max_access_token_ttl" integer;--> statement-breakpoint
ALTER TABLE "assay"."customers" ADD COLUMN "refresh_token_ttl" integer;--> statement-breakpoint
ALTER TABLE "assay"."customers" ADD COLUMN "session_max_ttl" integer;--> statement-breakpoint
ALTER TABLE "assay"."customers" ADD COLUMN "refresh_policy" text;--> statement-breakpoint
ALTER TABLE "assay"."customers" ADD COLUMN "key_max_age" integer;--> statement-breakpoint
CREATE INDEX "customers_key_max_age" ON "assay"."customers" USING btree ("id") WHERE "assay"."customers"."key_max_age" is not null;--> statement-breakpoint
ALTER TABLE "assay"."customers" ADD CONSTRAINT "customers_refresh_policy" CHECK ("assay"."customers"."refresh_policy" in ('until_confirmed', 'grace_only', 'strict'));