CREATE SEQUENCE "assay"."audit_event_ids" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1;--> statement-breakpoint
CREATE SEQUENCE "assay"."epochs" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1;--> statement-breakpoint
CREATE TABLE "assay"."api_keys" (
	"id" text PRIMARY KEY NOT NULL,
	"customer_id" text NOT NULL,
	"name" text,
	"scope" text NOT NULL,
	"digest" "bytea" NOT NULL,
	"created_at" timestamp with time zone DEFAULT assay.now() NOT NULL,
	"expires_at" timestamp with time zone,
	"last_used_at" timestamp with time zone,
	"retry_digest" "bytea",
	CONSTRAINT "api_keys_retry" UNIQUE("retry_digest")
);
--> statement-breakpoint
CREATE TABLE "assay"."audit_batches" (
	"last_position" bigint PRIMARY KEY NOT NULL,
	"first_position" bigint NOT NULL,
	"at" timestamp with time zone[] NOT NULL,
	"ids" bigint[] NOT NULL,
	"mark" uuid NOT NULL
);
--> statement-breakpoint
CREATE TABLE "assay"."audit_events" (
	"at" timestamp with time zone NOT NULL,
	"id" bigint DEFAULT case when pg_current_xact_id() is not null then nextval('assay.audit_event_ids') end NOT NULL,
	"customer_id" text,
	"type" text NOT NULL,
	"actor" text NOT NULL,
	"subject" text,
	"session_id" text,
	"token_id" text,
	"ip" text,
	"user_agent" text,
	"detail" text,
	CONSTRAINT "audit_events_at_id_pk" PRIMARY KEY("at","id")
) PARTITION BY RANGE ("at");
--> statement-breakpoint
CREATE TABLE "assay"."audit_events_default" PARTITION OF "assay"."audit_events" DEFAULT;
--> statement-breakpoint
CREATE TABLE "assay"."audit_sequencer" (
	"only" boolean PRIMARY KEY DEFAULT true NOT NULL,
	"position" bigint DEFAULT 0 NOT NULL,
	"last_id" bigint DEFAULT 0 NOT NULL,
	"missing" "int8multirange" DEFAULT '{}' NOT NULL,
	"leaving" "int8multirange" DEFAULT '{}' NOT NULL,
	"barrier" "xid8",
	"complete_until" timestamp with time zone DEFAULT assay.now() NOT NULL,
	CONSTRAINT "audit_sequencer_only" CHECK ("assay"."audit_sequencer"."only")
);
--> statement-breakpoint
CREATE TABLE "assay"."change_feed" (
	"seq" bigint PRIMARY KEY DEFAULT 0 NOT NULL
);
--> statement-breakpoint
CREATE TABLE "assay"."clock_baselines" (
	"id" text PRIMARY KEY NOT NULL,
	"reading" bigint NOT NULL,
	"observed_at" timestamp with time zone NOT NULL,
	"drift" bigint DEFAULT 0 NOT NULL
);
--> statement-breakpoint
CREATE TABLE "assay"."customers" (
	"id" text PRIMARY KEY NOT NULL,
	"email" text NOT NULL,
	"email_verified_at" timestamp with time zone,
	"name" text,
	"password_hash" text NOT NULL,
	"state" text DEFAULT 'active' NOT NULL,
	"epoch" bigint DEFAULT 0 NOT NULL,
	"api_keys" integer DEFAULT 0 NOT NULL,
	"rotations" integer DEFAULT 0 NOT NULL,
	"revision" integer DEFAULT 1 NOT NULL,
	"scopes" text,
	"access_token_ttl" integer,
	"max_access_token_ttl" integer,
	"refresh_token_ttl" integer,
	"session_max_ttl" integer,
	"refresh_policy" text,
	"key_max_age" integer,
	"tokens_per_minute" integer,
	"signing_alg" text,
	"sealed_data_key" "bytea" NOT NULL,
	"issued_until" timestamp with time zone DEFAULT '-infinity' NOT NULL,
	"created_at" timestamp with time zone DEFAULT assay.now() NOT NULL,
	CONSTRAINT "customers_id" CHECK ("assay"."customers"."id" ~ '^[a-z2-7]{16}$'),
	CONSTRAINT "customers_state" CHECK ("assay"."customers"."state" in ('active', 'disabled')),
	CONSTRAINT "customers_refresh_policy" CHECK ("assay"."customers"."refresh_policy" in ('until_confirmed', 'grace_only', 'strict', 'reusable')),
	CONSTRAINT "customers_signing_alg" CHECK ("assay"."customers"."signing_alg" in ('HS512', 'EdDSA', 'ES256', 'RS256'))
);
--> statement-breakpoint
CREATE TABLE "assay"."database_clock" (
	"only" boolean PRIMARY KEY DEFAULT true NOT NULL,
	"observed_at" timestamp with time zone,
	"observed_wall" bigint,
	"held_until" timestamp with time zone,
	"jumped_at" timestamp with time zone,
	"jump" bigint,
	CONSTRAINT "database_clock_only" CHECK ("assay"."database_clock"."only")
);
--> statement-breakpoint
CREATE TABLE "assay"."idempotency_keys" (
	"customer_id" text NOT NULL,
	"key_digest" "bytea" NOT NULL,
	"request_digest" "bytea" NOT NULL,
	"session_id" text NOT NULL,
	"expires_at" timestamp with time zone NOT NULL,
	CONSTRAINT "idempotency_keys_customer_id_key_digest_pk" PRIMARY KEY("customer_id","key_digest")
);
--> statement-breakpoint
CREATE TABLE "assay"."installation" (
	"only" boolean PRIMARY KEY DEFAULT true NOT NULL,
	"id" text NOT NULL,
	"sealed_key" "bytea" NOT NULL,
	"epoch" bigint DEFAULT 0 NOT NULL,
	"served_from" text,
	"created_at" timestamp with time zone DEFAULT assay.now() NOT NULL,
	CONSTRAINT "installation_only" CHECK ("assay"."installation"."only")
);
--> statement-breakpoint
CREATE TABLE "assay"."master_keys" (
	"id" text PRIMARY KEY NOT NULL,
	"check_value" text NOT NULL,
	"created_at" timestamp with time zone DEFAULT assay.now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "assay"."one_time_tokens" (
	"customer_id" text NOT NULL,
	"purpose" text NOT NULL,
	"digest" "bytea" NOT NULL,
	"email" text NOT NULL,
	"expires_at" timestamp with time zone NOT NULL,
	CONSTRAINT "one_time_tokens_customer_id_purpose_pk" PRIMARY KEY("customer_id","purpose"),
	CONSTRAINT "one_time_tokens_purpose" CHECK ("assay"."one_time_tokens"."purpose" in ('password_reset', 'email_verification', 'email_change'))
);
--> statement-breakpoint
CREATE TABLE "assay"."replicas" (
	"id" text PRIMARY KEY NOT NULL,
	"applied" bigint NOT NULL,
	"max_staleness" integer NOT NULL,
	"seen_at" timestamp with time zone NOT NULL,
	"version" text DEFAULT '' NOT NULL
);
--> statement-breakpoint
CREATE TABLE "assay"."revocations" (
	"seq" bigint PRIMARY KEY NOT NULL,
	"kind" text NOT NULL,
	"customer_id" text NOT NULL,
	"key" text DEFAULT '' NOT NULL,
	"epoch" bigint DEFAULT 0 NOT NULL,
	"dead_after" timestamp with time zone NOT NULL,
	CONSTRAINT "revocations_kind" CHECK ("assay"."revocations"."kind" in ('token', 'session', 'subject', 'customer', 'everyone'))
);
--> statement-breakpoint
CREATE TABLE "assay"."services" (
	"id" text PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"digest" "bytea" NOT NULL,
	"previous_digest" "bytea",
	"previous_until" timestamp with time zone,
	"may" text NOT NULL,
	"customers" text,
	"scopes" text,
	"created_at" timestamp with time zone DEFAULT assay.now() NOT NULL,
	"last_used_at" timestamp with time zone,
	"retry_digest" "bytea",
	CONSTRAINT "services_name" UNIQUE("name"),
	CONSTRAINT "services_retry" UNIQUE("retry_digest")
);
--> statement-breakpoint
CREATE TABLE "assay"."sessions" (
	"customer_id" text NOT NULL,
	"id" text NOT NULL,
	"subject" text NOT NULL,
	"scope" text NOT NULL,
	"audience" text NOT NULL,
	"claims" text,
	"access_ttl" integer NOT NULL,
	"customer_epoch" bigint NOT NULL,
	"subject_epoch" bigint NOT NULL,
	"gen" integer DEFAULT 1 NOT NULL,
	"issued_at" timestamp with time zone NOT NULL,
	"rotated_at" timestamp with time zone NOT NULL,
	"prev_rotated_at" timestamp with time zone,
	"confirmed_at" timestamp with time zone,
	"renewed_at" timestamp with time zone,
	"key_version" integer NOT NULL,
	"prev_key_version" integer,
	"access_until" timestamp with time zone NOT NULL,
	"expires_at" timestamp with time zone NOT NULL,
	"ends_at" timestamp with time zone NOT NULL,
	"revoked_at" timestamp with time zone,
	"ip" text,
	"user_agent" text,
	CONSTRAINT "sessions_customer_id_id_pk" PRIMARY KEY("customer_id","id"),
	CONSTRAINT "sessions_gen" CHECK ("assay"."sessions"."gen" > 0),
	CONSTRAINT "sessions_ends" CHECK ("assay"."sessions"."expires_at" <= "assay"."sessions"."ends_at")
) WITH (fillfactor = 70);
--> statement-breakpoint
CREATE TABLE "assay"."signing_keys" (
	"customer_id" text NOT NULL,
	"use" text NOT NULL,
	"version" integer NOT NULL,
	"state" text NOT NULL,
	"alg" text NOT NULL,
	"sealed_secret" "bytea" NOT NULL,
	"signs_after" timestamp with time zone,
	"created_at" timestamp with time zone DEFAULT assay.now() NOT NULL,
	"replaced_at" timestamp with time zone,
	"retired_at" timestamp with time zone,
	CONSTRAINT "signing_keys_customer_id_use_version_pk" PRIMARY KEY("customer_id","use","version"),
	CONSTRAINT "signing_keys_use" CHECK ("assay"."signing_keys"."use" in ('access', 'refresh')),
	CONSTRAINT "signing_keys_state" CHECK ("assay"."signing_keys"."state" in ('next', 'current', 'previous', 'retired')),
	CONSTRAINT "signing_keys_alg" CHECK ("assay"."signing_keys"."alg" in ('HS256', 'HS384', 'HS512', 'EdDSA', 'ES256', 'RS256')),
	CONSTRAINT "signing_keys_refresh_alg" CHECK ("assay"."signing_keys"."use" = 'access' or "assay"."signing_keys"."alg" in ('HS256', 'HS384', 'HS512')),
	CONSTRAINT "signing_keys_version" CHECK ("assay"."signing_keys"."version" > 0)
);
--> statement-breakpoint
CREATE TABLE "assay"."subject_epochs" (
	"customer_id" text NOT NULL,
	"subject" text NOT NULL,
	"epoch" bigint NOT NULL,
	"changed_at" timestamp with time zone DEFAULT assay.now() NOT NULL,
	"check_after" timestamp with time zone NOT NULL,
	CONSTRAINT "subject_epochs_customer_id_subject_pk" PRIMARY KEY("customer_id","subject")
);
--> statement-breakpoint
ALTER TABLE "assay"."api_keys" ADD CONSTRAINT "api_keys_customer_id_customers_id_fk" FOREIGN KEY ("customer_id") REFERENCES "assay"."customers"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "assay"."one_time_tokens" ADD CONSTRAINT "one_time_tokens_customer_id_customers_id_fk" FOREIGN KEY ("customer_id") REFERENCES "assay"."customers"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "assay"."signing_keys" ADD CONSTRAINT "signing_keys_customer_id_customers_id_fk" FOREIGN KEY ("customer_id") REFERENCES "assay"."customers"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "api_keys_customer" ON "assay"."api_keys" USING btree ("customer_id");--> statement-breakpoint
CREATE INDEX "audit_events_id" ON "assay"."audit_events" USING btree ("id");--> statement-breakpoint
CREATE INDEX "audit_events_customer" ON "assay"."audit_events" USING btree ("customer_id","at","id");--> statement-breakpoint
CREATE INDEX "audit_events_rare" ON "assay"."audit_events" USING btree ("type","at","id") WHERE "assay"."audit_events"."type" not in ('token.issued', 'session.refreshed');--> statement-breakpoint
CREATE INDEX "audit_events_operator" ON "assay"."audit_events" USING btree ("actor","at","id") WHERE "assay"."audit_events"."actor" like 'operator:%';--> statement-breakpoint
CREATE UNIQUE INDEX "customers_email" ON "assay"."customers" USING btree ("email");--> statement-breakpoint
CREATE INDEX "customers_email_prefix" ON "assay"."customers" USING btree ("email" text_pattern_ops);--> statement-breakpoint
CREATE INDEX "customers_name_prefix" ON "assay"."customers" USING btree (lower("name") text_pattern_ops,"id");--> statement-breakpoint
CREATE INDEX "customers_listed" ON "assay"."customers" USING btree ("created_at","id");--> statement-breakpoint
CREATE INDEX "customers_key_max_age" ON "assay"."customers" USING btree ("id") WHERE "assay"."customers"."key_max_age" is not null;--> statement-breakpoint
CREATE INDEX "idempotency_keys_expires_at" ON "assay"."idempotency_keys" USING btree ("expires_at");--> statement-breakpoint
CREATE INDEX "one_time_tokens_expires_at" ON "assay"."one_time_tokens" USING btree ("expires_at");--> statement-breakpoint
CREATE INDEX "revocations_dead_after" ON "assay"."revocations" USING btree ("dead_after");--> statement-breakpoint
CREATE INDEX "revocations_replaced" ON "assay"."revocations" USING btree ("customer_id","kind","key","dead_after") WHERE "assay"."revocations"."kind" in ('subject', 'customer');--> statement-breakpoint
CREATE INDEX "sessions_subject" ON "assay"."sessions" USING btree ("customer_id","subject","issued_at");--> statement-breakpoint
CREATE INDEX "sessions_listed" ON "assay"."sessions" USING btree ("customer_id","issued_at","id");--> statement-breakpoint
CREATE UNIQUE INDEX "signing_keys_current" ON "assay"."signing_keys" USING btree ("customer_id","use") WHERE "assay"."signing_keys"."state" = 'current';--> statement-breakpoint
CREATE UNIQUE INDEX "signing_keys_next" ON "assay"."signing_keys" USING btree ("customer_id") WHERE "assay"."signing_keys"."state" = 'next';--> statement-breakpoint
CREATE INDEX "signing_keys_previous_access" ON "assay"."signing_keys" USING btree ("replaced_at") WHERE "assay"."signing_keys"."state" = 'previous' and "assay"."signing_keys"."use" = 'access';--> statement-breakpoint
CREATE INDEX "signing_keys_previous_refresh" ON "assay"."signing_keys" USING btree ("customer_id","version") WHERE "assay"."signing_keys"."state" = 'previous' and "assay"."signing_keys"."use" = 'refresh';--> statement-breakpoint
CREATE INDEX "signing_keys_signs_after" ON "assay"."signing_keys" USING btree ("signs_after") WHERE "assay"."signing_keys"."state" = 'next';--> statement-breakpoint
CREATE INDEX "signing_keys_age" ON "assay"."signing_keys" USING btree ("created_at") WHERE "assay"."signing_keys"."state" = 'current';--> statement-breakpoint
CREATE INDEX "subject_epochs_check_after" ON "assay"."subject_epochs" USING btree ("check_after");
--> statement-breakpoint
INSERT INTO "assay"."change_feed" DEFAULT VALUES;
--> statement-breakpoint
INSERT INTO "assay"."audit_sequencer" DEFAULT VALUES;
