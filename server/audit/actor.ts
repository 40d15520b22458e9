/** Actors as the audit names them. */

export const isOperator = (actor: string): boolean => actor.startsWith('operator:')

/** Whether the actor acts for a customer, and isn't that customer. */
export const isManager = (actor: string): boolean => isOperator(actor) || isService(actor)

export const isService = (actor: string): boolean => actor.startsWith('service:')
