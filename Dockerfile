# Node runs the TypeScript as it is: there is nothing to build, only packages to install.

FROM node:26-slim AS packages
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# package.json pins a Node of its own for development, as optional packages. This image has its Node, so they go;
# --omit=optional can't do it, since the compiled part of argon2 is optional too: hence the check that it loads.
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund \
 && pinned=$(node -p "Object.keys(require('./package.json').optionalDependencies).join(' ')") \
 && (cd node_modules && rm -rf $pinned .bin/node) \
 && node -e "require('@node-rs/argon2').hashSync('')" \
 && test "$(find node_modules -name node -type f -o -name node -type l)" = ""

FROM node:26-slim
# Whoever reaches the port could sign up, and every rule without a customer trusts every customer: so sign-up is closed here.
ENV NODE_ENV=production HOST=0.0.0.0 PORT=3001 DATA_DIR=/data SIGNUP=closed NODE_COMPILE_CACHE=/app/.cache
WORKDIR /app
# The embedded database lives here unless DATABASE_URL names another. Owned by node before VOLUME freezes it.
RUN install -d -o node -g node -m 700 /data
COPY --from=packages /app/node_modules ./node_modules
COPY package.json openapi.yaml ./
COPY db ./db
COPY server ./server
COPY cli ./cli
# What Node makes of the code, made once: half of a start's time, and 20 MB less. Its folder bears the user's number, so it is
# made as node, who may read it afterwards and not write it. Under another user the start does without.
RUN install -d -o node -g node .cache \
 && su node -s /bin/sh -c 'node cli/main.ts --help && node server/main.ts --help' \
 && chown -R root:root .cache && chmod -R go=rX .cache
USER node
VOLUME /data
EXPOSE 3001
# To process 1, without a shell in between: with WORKERS it is the primary, which tells the others and waits for them.
STOPSIGNAL SIGTERM
# Slim has no curl. This asks whether the process lives; whether it can answer is /readyz, for the load balancer.
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT}/healthz`).then(r => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# SIGUSR1 would open the inspector, which reads every secret in memory.
ENTRYPOINT ["node", "--disable-sigusr1", "/app/cli/main.ts"]
CMD ["serve"]
