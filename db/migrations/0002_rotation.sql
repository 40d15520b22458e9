ALTER TABLE "assay"."customers" ADD COLUMN "rotations" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "assay"."signing_keys" ADD COLUMN "replaced_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "assay"."signing_keys" ADD COLUMN "retired_at" timestamp with time zone;--> statement-breakpoint
CREATE INDEX "signing_keys_previous" ON "assay"."signing_keys" USING btree ("replaced_at") WHERE "assay"."signing_keys"."state" = 'previous';--> statement-breakpoint
CREATE INDEX "signing_keys_age" ON "assay"."signing_keys" USING btree ("created_at") WHERE "assay"."signing_keys"."state" = 'current';