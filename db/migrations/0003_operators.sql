ALTER TABLE "assay"."customers" ADD COLUMN "revision" integer DEFAULT 1 NOT NULL;--> statement-breakpoint
ALTER TABLE "assay"."replicas" ADD COLUMN "version" text DEFAULT '' NOT NULL;--> statement-breakpoint
CREATE INDEX "audit_events_rare" ON "assay"."audit_events" USING btree ("type","at","id") WHERE "assay"."audit_events"."type" not in ('token.issued', 'session.refreshed');--> statement-breakpoint
CREATE INDEX "audit_events_operator" ON "assay"."audit_events" USING btree ("actor","at","id") WHERE "assay"."audit_events"."actor" like 'operator:%';--> statement-breakpoint
CREATE INDEX "customers_email_prefix" ON "assay"."customers" USING btree ("email" text_pattern_ops);--> statement-breakpoint
CREATE INDEX "customers_name_prefix" ON "assay"."customers" USING btree (lower("name") text_pattern_ops,"id");--> statement-breakpoint
CREATE INDEX "customers_listed" ON "assay"."customers" USING btree ("created_at","id");