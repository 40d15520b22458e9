CREATE TABLE "assay"."resource_servers" (
	"id" text PRIMARY KEY NOT NULL,
	"name" text,
	"digest" "bytea" NOT NULL,
	"previous_digest" "bytea",
	"previous_until" timestamp with time zone,
	"customers" text,
	"scopes" text,
	"created_at" timestamp with time zone DEFAULT assay.now() NOT NULL
);
