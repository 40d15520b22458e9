ALTER TABLE "assay"."revocations" DROP CONSTRAINT "revocations_kind";--> statement-breakpoint
ALTER TABLE "assay"."installation" ADD COLUMN "epoch" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "assay"."revocations" ADD CONSTRAINT "revocations_kind" CHECK ("assay"."revocations"."kind" in ('token', 'session', 'subject', 'customer', 'everyone'));