/** The one message of the page, which screen readers read out. */
import { ref } from 'vue'
import { RequestError } from './api'
import { t } from './i18n'

export const message = ref<{ kind: 'good' | 'bad'; text: string } | null>(null)

export function tell(kind: 'good' | 'bad', what: unknown): void {
  message.value = { kind, text: sentence(what) }
}

export function sentence(what: unknown): string {
  if (what instanceof RequestError) {
    if (what.status === 0) return t('error.offline')
    if (what.status === 401 || (what.status === 403 && !what.message)) return t('error.forbidden')
    return what.message
  }
  return what instanceof Error ? what.message : String(what)
}
